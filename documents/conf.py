"""Palimpsest's settings: one dict `PALIMPSEST` in the Django settings, read once into one frozen value.

Every limit of the project is a field here, with its unit in its name; docs/operations.md lists them all."""

from dataclasses import dataclass, fields
from functools import cache
from typing import Any

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed


@dataclass(frozen=True, slots=True, kw_only=True)
class Conf:
    """The settings in force. Unknown keys and wrong types are refused when they are first read."""

    # documents
    role_for: str = "documents.roles.membership_role"
    """Dotted path of the rule `(user, document) -> Role | None`; replaces the membership rule everywhere."""
    open_rooms: bool = False
    """Anyone may open any room, created on first use; not what people made. For quick starts and benchmarks."""
    websocket_prefix: str = "/"
    """Path under which `realtime.routing.websocket_urlpatterns` are mounted: pages and tickets tell clients."""
    ticket_seconds: int = 900
    """A ticket serves until it is this old, however often the network drops in between."""
    deleted_document_days: int = 30
    """A deleted document can be recovered for this long."""

    # history
    update_bytes_max: int = 16 * 1024 * 1024
    """One update in the log; a larger one is refused."""
    document_bytes_max: int = 64 * 1024 * 1024
    """Full state of one document, with what was ever deleted; above it new content is refused, and deleting goes on.
    Met within 2 percent. 0 is no limit."""
    document_roots_max: int = 1_000
    """Root names of one document; yrs keeps about 1 KB for each, for ever. An update with one more is refused."""
    document_clients_max: int = 100_000
    """Client ids of one document: each costs every handshake about 6 bytes. An update with one more is refused."""
    document_clients_per_person_max: int = 20_000
    """Client ids of one person in one document (or of all without an account): ten new pages a day for five years. An
    update with one more is refused, so that nobody uses up DOCUMENT_CLIENTS_MAX for the others."""
    update_structs_max: int = 250_000
    """Structs, deleted ranges and values that one update may hold; B4, the field's usual trace of 260,000 edits, has
    14,000. pycrdt applies so many in 0.1 s, in which the process does nothing else."""
    append_rows_max: int = 2000
    """Rows of one transaction of the group commit; the rest waits for the next one."""
    head_wait_ms: int = 50
    """How long a batch waits for one document's head; other processes' appends hold one for about a millisecond."""
    parked_ms: int = 100
    """How long a document whose head was held steps aside before it is tried again."""
    append_lock_timeout_ms: int = 5000
    """How long an append waits for a document's head that another transaction holds; then its sockets get 1013."""
    page_rows: int = 5000
    """Rows of the log fetched by one query."""
    page_bytes_max: int = 32 * 1024 * 1024
    """Bytes of the log fetched by one query; a larger row comes by itself, and segments one by one."""
    fold_rows_per_transaction: int = 1000
    """Rows folded in one pycrdt transaction: 326 ms for 259,778 rows, against 505 ms one by one."""
    fold_bytes_per_transaction: int = 16 * 1024
    """Bytes of those rows, a larger row by itself: what goes on where the row before it ends is copied for each row."""
    snapshot_rows: int = 5000
    """A tail of more rows than this is compacted into a snapshot."""
    snapshot_bytes_min: int = 64 * 1024
    """A tail of more bytes than these, and than SNAPSHOT_TAIL_PERCENT allows, is compacted into a snapshot."""
    snapshot_tail_percent: int = 50
    """How large a tail may grow, in percent of the last snapshot's bytes: opening reads both."""
    snapshot_distance_rows: int = 4000
    """Older snapshots stand this many rows apart: opening any moment replays no more. More, where otherwise they would
    take more than SNAPSHOTS_LOG_PERCENT."""
    snapshots_log_percent: int = 200
    """What all snapshots of a document may take, in percent of its log's bytes, both as stored; the newest always
    stays."""
    segment_rows_min: int = 2000
    """Squash packs no fewer cold rows than this into one segment."""
    segment_rows_max: int = 4000
    """Squash packs no more rows than this into one segment."""
    segment_bytes_max: int = 32 * 1024 * 1024
    """Squash packs no more bytes than this into one segment; a single larger row is a segment of its own."""
    squash_after_seconds: int = 24 * 3600
    """Rows younger than this stay as they are."""
    relays: bool = False
    """Whether one person's client may bring what another's wrote; it is logged under the one who brought it."""
    refused_days: int = 30
    """What the log did not take is kept for its sender and the document's owners for this long."""
    refused_bytes_max: int = 64 * 1024 * 1024
    """Refused updates of one person (or of all without an account) that one document keeps, and as much as came last
    in one go besides; the oldest go first."""
    refused_waiting_bytes_max: int = 8 * 1024 * 1024
    """Bytes of refused updates that wait to be kept in one process; above it their senders are read no further."""
    versions_max: int = 1000
    """Versions of one document that people have named; one more is refused."""
    automatic_version_hours: int = 8
    """A document that people work on gets a version by itself this long after the first edit behind its last version.
    0 is never."""
    automatic_version_days: int = 30
    """Of the versions that came by themselves, are of older moments than this and are neither locked nor annotated, the
    last of each week stays. 0 keeps all."""
    copy_rows_max: int = 1_000_000
    """Rows of history that a copy of a document may bring along, in one transaction."""
    audit_opened_seconds: int = 3600
    """That somebody opened a document, or was refused a write, through one door is written into the audit once in this
    time. 0 writes each."""
    audit_days: int = 0
    """Entries of the audit older than this are removed; edits, which are in the log, are not. 0 keeps them for ever."""
    run_gap_seconds: int = 300
    """Updates of one session that are closer than this are one run: what a person reads as one edit."""
    reading_bytes_max: int = 16 * 1024 * 1024
    """Bytes of one difference, or of one document's blame, that an answer holds; a larger one is left out of it."""
    playback_steps_max: int = 500
    """Steps of one playback; each is a difference."""
    playbacks_max: int = 4
    """Playbacks that one process tells at a time, each of which holds two documents until its reader is done; one more
    waits, and then gets a 503."""
    heavy_reads_max: int = 4
    """Differences, blames and plans of a restore or an undo that one process makes at a time, each of which holds
    documents in memory; one more waits, and then gets a 503."""
    heavy_reads_wait_seconds: float = 5.0
    """How long a playback or another heavy read waits for others to end before it is turned away."""
    blame_stretch_seconds: int = 60
    """Blame tells each moment of writing to within this: updates of one session that come so soon after the first are
    told as one."""
    blame_entries_max: int = 1_000_000
    """Stretches of client clocks by author that one process keeps for blame, about 100 bytes each; B4, the field's
    usual trace of 260,000 edits, has 54,000. A document counts 15 by itself, each of its client ids 3. The documents
    asked for longest ago go first."""
    undo_rows_max: int = 200_000
    """Updates of one person that one undo takes back at once; a span with more is refused, a shorter one is not."""
    manifest_key: str = ""
    """Path of the private key (`manage.py manifest_key` makes one) that signs the heads of all logs once a day; only
    Celery's workers need to read it. Empty: nothing is signed."""
    manifest_directory: str = ""
    """Folder that manifests are put into; best on storage that nobody who can write to the database can change."""
    manifest_command: str = ""
    """Command that takes a manifest on its standard input, run without a shell; `{name}` becomes its file name. It may
    be given one twice."""
    manifest_command_seconds: float = 60.0
    """MANIFEST_COMMAND is ended after this long, and tried again at the next turn; the whole task has 120 s."""

    # realtime
    frame_bytes_max: int = 1024 * 1024
    """One WebSocket frame of a client; a larger one closes its socket with 1009."""
    sync_frame_bytes_max: int = 16 * 1024 * 1024
    """One frame that holds a single update: long offline work comes home in one."""
    off_loop_bytes: int = 64 * 1024
    """Frames above this are read and judged on a thread, while their room takes no other edit; other rooms go on.
    Documents above it are read and edited there for clients of JSON rooms."""
    compute_threads: int = 2
    """Threads that read and judge large frames in one process."""
    documents_per_socket_max: int = 100
    """Documents that one socket of `/collaboration` may have open, or wait for; its provider is denied one more."""
    token_seconds: float = 60.0
    """A provider there that brings no token for a document within this time, or none after it was asked for a fresh
    one, is denied the document, and a socket that has opened none by then gets 1013."""
    unadmitted_frames_max: int = 1000
    """Frames of all documents of one socket there that wait for a token; one more closes it with 1013."""
    unadmitted_bytes_max: int = 5 * 1024 * 1024
    """As UNADMITTED_FRAMES_MAX, in bytes."""
    updates_per_second: int = 500
    """Messages (updates and others) that one socket is read at; who sends more is read slower, and loses nothing. Far
    above any person and any paste. 0 is no limit."""
    updates_burst: int = 5000
    """Messages that one socket may send at once before UPDATES_PER_SECOND slows it."""
    bytes_per_second: int = 2 * 1024 * 1024
    """Bytes that one socket is read at; who sends more is read slower. An edit that cuts an emoji in two counts as many
    bytes as the document has. 0 is no limit."""
    bytes_burst: int = 32 * 1024 * 1024
    """Bytes that one socket may send at once before BYTES_PER_SECOND slows it."""
    cpu_percent_per_socket: int = 10
    """Of one processor, what the updates of one socket may take over time: more of it counts as so many bytes sent. An
    edit takes some 100 µs; many in one text of megabytes take seconds. 0 is no limit."""
    sockets_max: int = 20_000
    """Sockets of one process; one more gets 1013. 0 is no limit, of this and the next three."""
    sockets_per_document_max: int = 10_000
    """Sockets in one document, in one process; one more gets 1013."""
    sockets_per_address_max: int = 2000
    """Sockets from one address (of IPv6: one /64 network), in one process; one more gets 1013. An office may be one
    address; behind a proxy all are, unless TRUSTED_PROXIES names it."""
    sockets_per_user_max: int = 500
    """Sockets of one signed-in user, in one process; one more gets 1013."""
    asks_max: int = 16
    """Missing edits that one socket is asked for; what builds on others is then refused without a question."""
    load_seconds_max: float = 60.0
    """A database that does not answer a read of a room for this long has its connection cut. 0 is no limit."""
    load_threads: int = 4
    """Threads of one process that read the database for rooms. Appends have one of their own."""
    authenticate_seconds: float = 30.0
    """A socket that is not in its room by then, because the database is slow, gets 1013. 0 is no limit."""
    messages_per_frame_max: int = 256
    """Messages that one frame may hold; stock clients send one."""
    unstored_bytes_max: int = 32 * 1024 * 1024
    """Bytes of updates that wait for the log in one process; above it a socket that brings one more is read no
    further until there is room."""
    outbox_bytes_max: int = 1024 * 1024
    """Bytes that wait for one slow reader; above it they become one merged update, read from the log."""
    awareness_states_max: int = 2048
    """Awareness states that one room keeps; then whoever shows the most gives up one to who shows fewer."""
    awareness_clock_ahead_max: int = 100_000_000
    """How far a client's clock, which counts each change of its state since it was loaded, may be ahead of 60 for each
    second that its room has been open; an entry above that is passed over."""
    awareness_timeout_seconds: int = 30
    """An awareness state that its client has not renewed for this long is removed (y-protocols: outdatedTimeout)."""
    collab_content_bytes_max: int = 64 * 1024
    """What a field says, as UTF-8, above which clients of JSON rooms are told what changed, and not all of it."""
    forks_bytes_max: int = 32 * 1024 * 1024
    """Documents, as stored, that one process keeps as of some seq for clients of JSON rooms who edit them: about ten
    times as much in memory. Those used longest ago go first, and are made anew where they are needed."""
    presence_lease_seconds: int = 30
    """A socket in a JSON room that has not sent a heartbeat for this long is counted no more; clients send one every
    10 s."""
    cursor_pause_seconds: float = 0.05
    """Of one socket's cursor in a JSON room the others are told this often, where it stands by then."""
    head_check_seconds: float = 2.0
    """How often the heads and rights of all open rooms are compared with the database, in one query."""
    recheck_pause_seconds: float = 0.25
    """However many messages ask for it, a room's people, and all accounts, are looked at again this far apart."""
    session_check_seconds: float = 50.0
    """How often a socket's session is looked up where the database does not keep sessions (SESSION_ENGINE). The watch
    does it, up to HEAD_CHECK_SECONDS later: one that has expired is noticed within a minute."""
    room_idle_seconds: float = 60.0
    """A room that nobody is in stays warm for this long."""
    catch_up_rows_max: int = 20_000
    """A room that is further behind the log than this is loaded anew instead."""
    catch_up_bytes_max: int = 64 * 1024 * 1024
    """As CATCH_UP_ROWS_MAX, in bytes of those rows, which are held in memory."""
    eviction_snapshot_rows: int = 200
    """An idle room is compacted into a snapshot if at least this many rows came since the last one."""
    awareness_states_per_socket_max: int = 16
    """Clients for which one socket may speak."""
    rooms_max: int = 5000
    """Rooms that one process keeps open; one more takes the place of that which nobody is in for longest, and gets 1013
    where somebody is in all of them."""
    warm_bytes_max: int = 32 * 1024 * 1024
    """Documents, as stored, in rooms that nobody is in; above it those nobody is in for longest end before
    ROOM_IDLE_SECONDS. In memory a document takes about ten times as much."""
    channel_messages: bool = True
    """Whether `doc_update` and `send_message`, sent by code of one's own to a room's group of the channel layer, are
    taken: in the log, of nobody's, by the door `channel`. Whoever reaches the layer can send them."""
    layer_timeout_seconds: float = 1.0
    """How long the channel layer may take for one thing, and the pause after it failed: hanging counts as away."""
    hints_waiting_bytes_max: int = 16 * 1024 * 1024
    """Hints that wait for a slow channel layer; above it the oldest go first, and the log has what they told."""
    hint_bytes_max: int = 64 * 1024
    """An update above this goes to the other processes as seqs only; they read it from the log."""
    notification_bytes_max: int = 16 * 1024
    """One notification, as JSON; a larger one is refused."""
    unread_notifications_max: int = 1000
    """Unread notifications of one person; of more, the oldest count as read."""
    read_notification_days: int = 30
    """Notifications are removed this long after they were read. 0 keeps them."""
    ping_seconds: float = 20.0
    """A socket is pinged this often, and ended where it does not answer for as long: at the latest after twice this."""
    request_seconds: float = 20.0
    """A connection that does not bring a whole request, or handshake, within this time is closed."""
    stalled_reader_seconds: float = 60.0
    """A reader of an answer over HTTP who takes nothing of it for this long is cut off: it holds memory, an export a
    snapshot of the database too."""
    drain_seconds: float = 5.0
    """On SIGTERM what waits is stored and written, and sockets are closed with 1012, all within this time."""
    close_seconds: float = 5.0
    """How long a client may take to answer a close, and requests to end on SIGTERM; then the connection is cut."""
    append_seconds_max: float = 10.0
    """A database that does not answer an append for this long is given up: connection cut, sockets closed with 1013.
    0 is no limit."""
    handler_threads: int = 16
    """Threads of one process for the handlers of one class of synchronous consumers (chat): one that blocks holds one.
    Each may hold a connection to the database; they end when they were idle for 10 s."""
    handler_wait_seconds: float = 2.0
    """How long a message waits for a thread where all HANDLER_THREADS are busy; then its sender is told `busy`."""
    chat_message_length_max: int = 4000
    """Characters of one chat message."""
    chat_messages_per_second: float = 5.0
    """What clients send, in messages, that one chat socket is read at; who sends more is read slower. 0 is no limit."""
    chat_messages_burst: int = 20
    """Messages that one chat socket may send at once before CHAT_MESSAGES_PER_SECOND slows it."""
    chat_page_max: int = 100
    """Messages of one page of a chat's history."""
    chat_missed_max: int = 500
    """Messages that somebody who comes back is sent by themselves; of more the last, and the rest by page."""
    chat_messages_max: int = 100_000
    """Messages that one chat keeps; the oldest go first. 0 keeps all."""
    chat_days: int = 0
    """Chat messages older than this are removed. 0 keeps them."""


def conf() -> Conf:
    """The settings in force. Raises: ImproperlyConfigured on an unknown key or a value of the wrong type."""
    return _read()


@cache
def _read() -> Conf:
    given: dict[str, Any] = getattr(django_settings, "PALIMPSEST", {})
    known = {field.name: field for field in fields(Conf)}
    for key, value in given.items():
        name = key.lower()
        if name not in known:
            raise ImproperlyConfigured(f"PALIMPSEST has no setting {key!r}; it has {', '.join(known).upper()}")
        expected: type[Any] = type(known[name].default)
        if type(value) is not expected and not (expected is float and type(value) is int):
            raise ImproperlyConfigured(f"PALIMPSEST[{key!r}] must be of type {expected.__name__}, not {value!r}")
        if expected in (int, float) and value < 0:
            raise ImproperlyConfigured(f"PALIMPSEST[{key!r}] must not be negative, as {value!r} is")
    return Conf(**{key.lower(): value for key, value in given.items()})


def _forget(*, setting: str, **_: object) -> None:
    if setting == "PALIMPSEST":
        _read.cache_clear()


setting_changed.connect(_forget)
