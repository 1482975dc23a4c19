"""The line to the other processes: the channel layer. It carries hints, never the truth.

A hint may be dropped, repeated, reordered or forged: all are signed, seqs must fit, and what is missing is read from
the log. Publishing never fails, and waits LAYER_TIMEOUT_SECONDS at most: the watch of every process finds what was
not heard."""

import asyncio
import contextlib
import hashlib
import hmac
import json
import logging
import secrets
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from django.conf import settings

from documents.conf import conf
from documents.credentials import accounts_changed
from documents.roles import rights_changed
from history.crdt.joining import joined
from history.crdt.merging import merged
from history.fates import Stored
from history.signals import log_appended
from realtime.frames import SharedMessage
from realtime.groups import PROCESSES_GROUP, document_group
from realtime.identities import identity_of
from realtime.protocols.awareness import Claim, decode_claims, encode_claims
from realtime.protocols.identities import Identity
from realtime.protocols.messages import Stateless
from realtime.rechecks import EVERYONE
from realtime.tails import Committed

if TYPE_CHECKING:
    from realtime.hub import Hub
    from realtime.rooms import Room

logger = logging.getLogger(__name__)

HINT_OVERHEAD_BYTES = 512
"""What a hint counts beside what it carries."""

AUTHORS_TOLD_MAX = 16
"""Of one hint of rows: the last ones."""

ACCOUNTS_TOLD_MAX = 20
"""Accounts that one process tells of by name in RECHECK_PAUSE_SECONDS; of more it tells once, without names."""


def silence_seconds() -> float:
    """Who is not heard for so long is gone, and a bus that does not bring back this process's own heartbeat, of which
    each watch sends one, has forgotten its groups."""
    return max(3 * conf().head_check_seconds, 2 * conf().layer_timeout_seconds)


class Bus:
    """This process's membership in the channel layer; without a layer the process is alone and nothing is missing."""

    def __init__(self, hub: "Hub") -> None:
        self._hub = hub
        self._layer = get_channel_layer()
        self._process = secrets.token_hex(8)
        self._channel: str | None = None
        self._subscribed: Counter[int] = Counter()
        """How many here want to hear of a document: its room, and lobbies."""
        self._leaving: set[int] = set()
        """Whose groups the layer has yet to take this process out of."""
        self._membership = asyncio.Lock()
        self._is_joined = False
        self._outgoing: deque[tuple[str, dict[str, Any], int]] = deque()
        self._outgoing_bytes = 0
        self._has_outgoing = asyncio.Event()
        self._heard: dict[str, float] = {}
        self._tasks = (
            [] if self._layer is None else [asyncio.create_task(self._listen()), asyncio.create_task(self._send())]
        )

    async def ready(self) -> None:
        """Join the group of all processes, for the first time or again."""
        await self._join()

    async def subscribe(self, document_id: int) -> None:
        """Hear of a document from now on; a layer that is away is tried again by the watch."""
        self._subscribed[document_id] += 1
        await self._join(document_id)

    async def unsubscribe(self, document_id: int) -> None:
        """Hear of a document no more, once for each time it was subscribed; a layer that is away is told again by the
        watch."""
        self._subscribed[document_id] -= 1
        if self._subscribed[document_id] > 0:
            return
        del self._subscribed[document_id]
        if len(self._leaving) < conf().rooms_max:  # else the layer forgets it by itself, in a day
            self._leaving.add(document_id)
        await self._leave(document_id)

    def publish_rows(self, room: "Room", rows: "Sequence[Committed]", *, behind: bytes, hash_: bytes) -> None:
        """Tell the other processes of rows of one document, contiguous and in order, with the hash of the row before
        them and that of the last. Where a character was split the update is of no use to them: they fold the document
        anew, from the log."""
        is_small = sum(len(row.update) for row in rows) <= conf().hint_bytes_max
        is_told = is_small and not any(row.splits for row in rows)
        update = joined(merged([row.update for row in rows])) if is_told else b""
        self._publish(
            document_group(room.document_id),
            _rows_hint(
                document_id=room.document_id,
                epoch=room.epoch,
                first_seq=rows[0].first_seq,
                last_seq=rows[-1].last_seq,
                update=update,
                behind=behind,
                hash_=hash_,
                process=self._process,
                authors=[author for row in rows for author in row.authors],
            ),
        )

    def publish_awareness(self, document_id: int, claims: Sequence[Claim]) -> None:
        """Tell the other processes what users whose sockets are here show."""
        for part in _parts(claims):
            message = {"type": "awareness", "document": document_id, "process": self._process}
            self._publish(document_group(document_id), message | {"claims": encode_claims(part)})

    def publish_message(self, document_id: int, payload: bytes) -> None:
        """Have the other processes send a message to everyone in their rooms."""
        message = {"type": "message", "document": document_id, "process": self._process}
        self._publish(document_group(document_id), message | {"message": payload})

    def ask_for_presence(self, document_id: int) -> None:
        """Ask the other processes who is in their rooms of this document."""
        message = {"type": "presence_query", "document": document_id, "process": self._process}
        self._publish(document_group(document_id), message)

    async def check(self) -> None:
        """Called by the watch: show that this process lives, forget those that do not, and rejoin all groups where
        the layer has lost them."""
        if self._layer is None:
            return
        now, silence = self._hub.now(), silence_seconds()
        self._publish(PROCESSES_GROUP, {"type": "alive", "process": self._process})
        if not self._is_joined or now - self._heard.get(self._process, 0.0) > silence:
            await self._rejoin(now)
            return
        await self._hub.groups.check()
        for document_id in list(self._leaving):
            if not await self._leave(document_id):
                break
        silent = {name for name, at in self._heard.items() if now - at > silence}
        for process in silent:
            del self._heard[process]
            for room in self._hub.rooms.values():
                room.show(room.awareness.remove_owner(process))

    async def _rejoin(self, now: float) -> None:
        """Come back to a layer that was away: what others said meanwhile is asked for, and nobody counts as dead for
        not having been heard. The first group that cannot be joined ends it, until the watch looks again: a layer that
        hangs costs the watch LAYER_TIMEOUT_SECONDS, not as much for each room."""
        self._heard = {process: now for process in self._heard if process != self._process}
        self._is_joined = True  # until a join fails
        if not await self._join():
            return
        self._hub.groups.rejoin()
        for document_id in list(self._subscribed):
            if not await self._join(document_id):
                return
            self.ask_for_presence(document_id)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(TimeoutError):  # a layer forgets by itself who is gone
            async with asyncio.timeout(conf().layer_timeout_seconds):
                for document_id in list(self._subscribed):
                    self._subscribed[document_id] = 1
                    await self.unsubscribe(document_id)

    async def _join(self, document_id: int | None = None) -> bool:
        """Join the group of all processes, or that of a document unless it is unsubscribed by then. Whether that could
        be done; where not, the watch joins all of them again."""
        if self._layer is None:
            return True
        try:
            async with asyncio.timeout(conf().layer_timeout_seconds), self._membership:
                if self._channel is None:
                    # Of the kind that Channels' own consumers have: channels_redis reads one kind at a time in a
                    # process, and with two each waits for ever behind the other.
                    self._channel = await self._layer.new_channel()
                if document_id is None or document_id in self._subscribed:
                    group = PROCESSES_GROUP if document_id is None else document_group(document_id)
                    await self._layer.group_add(group, self._channel)
        except Exception as error:  # noqa: BLE001  (whatever a layer or a database raises)
            logger.info("channel layer: group_add failed: %s", type(error).__name__)
            self._is_joined = False
            return False
        return True

    async def _leave(self, document_id: int) -> bool:
        """Leave the group of a document unless it is subscribed by then. Whether that could be done; where not, the
        watch tries again: hints that nobody takes would fill this process's channel, and the key stay for a day."""
        if self._layer is not None and self._channel is not None:
            try:
                async with asyncio.timeout(conf().layer_timeout_seconds), self._membership:
                    if document_id not in self._subscribed:
                        await self._layer.group_discard(document_group(document_id), self._channel)
            except Exception as error:  # noqa: BLE001  (whatever a layer or a database raises)
                logger.info("channel layer: group_discard failed: %s", type(error).__name__)
                return False
        self._leaving.discard(document_id)
        return True

    def _publish(self, group: str, message: dict[str, Any]) -> None:
        if self._layer is None:
            return
        size = HINT_OVERHEAD_BYTES + sum(len(each) for each in message.values() if isinstance(each, bytes))
        self._outgoing.append((group, signed(message), size))
        self._outgoing_bytes += size
        while self._outgoing_bytes > conf().hints_waiting_bytes_max:
            self._take_outgoing()
        if self._outgoing:
            self._has_outgoing.set()

    def _take_outgoing(self) -> tuple[str, dict[str, Any]]:
        group, message, size = self._outgoing.popleft()
        self._outgoing_bytes -= size
        return group, message

    async def _send(self) -> None:
        while True:
            await self._has_outgoing.wait()
            if not self._outgoing:
                self._has_outgoing.clear()
                continue
            group, message = self._take_outgoing()
            try:
                async with asyncio.timeout(conf().layer_timeout_seconds):
                    await self._layer.group_send(group, message)
            except Exception as error:  # noqa: BLE001  (whatever a layer or a database raises)
                logger.info("channel layer: a hint was not sent: %s", type(error).__name__)
                await asyncio.sleep(conf().layer_timeout_seconds)

    async def _listen(self) -> None:
        await self._join()
        while True:
            try:
                if self._channel is None:
                    raise ConnectionError("no channel yet")
                message = await self._layer.receive(self._channel)
            except Exception as error:  # noqa: BLE001  (whatever a layer or a database raises)
                logger.info("channel layer: cannot listen: %s", type(error).__name__)
                self._is_joined = False  # it may have come back without its groups
                await asyncio.sleep(conf().layer_timeout_seconds)
                await self._join()
                continue
            try:
                self._hear(message)
            except Exception as error:  # noqa: BLE001  (anyone on the layer can send anything)
                logger.warning("channel layer: a message that is none of ours: %s", type(error).__name__)

    def _hear(self, message: dict[str, Any]) -> None:
        process = str(message.get("process", ""))
        # Those of rows are a reason to look at the log, whoever sent them.
        if message["type"] != "doc_update" and not is_genuine(message):
            raise ValueError("not signed by one of these processes")
        if message["type"] == "alive":
            self._heard[process] = self._hub.now()
            return
        if message["type"] == "accounts":
            self._hub.rechecks.look_at_accounts_soon(message["user"])
            return
        if message["type"] == "rights":
            self._hub.rechecks.look_at_document_soon(message["document"])
            return
        if process == self._process:
            return
        room = self._hub.rooms.get(message["document"])
        if room is None:
            return
        match message["type"]:
            case "doc_update":
                self._hear_rows(room, message)
            case "awareness":
                self._heard.setdefault(process, self._hub.now())
                room.hear_from(process, decode_claims(message["claims"]))
            case "presence_query":
                self.publish_awareness(room.document_id, room.presence_here())
            case "message":
                room.pass_on(message["message"])
            case "stateless":
                room.say(SharedMessage(Stateless(message["payload"])))
            case unknown:
                raise ValueError(f"unknown message type {unknown!r}")

    def _hear_rows(self, room: "Room", message: dict[str, Any]) -> None:
        """Take a hint of rows: applied if it is genuine and next in line, otherwise a reason to read the log."""
        is_next = message["epoch"] == room.epoch and message["first_seq"] <= room.seq + 1
        if is_next and message["update"] and is_genuine(message):
            rows = Committed(
                first_seq=message["first_seq"],
                last_seq=message["last_seq"],
                update=message["update"],
                authors=tuple(Identity(*author) for author in message.get("authors", ())),
            )
            room.advance_by_hint(rows, behind=message["behind"], hash_=message["hash"])
        elif message["last_seq"] > room.seq:
            room.catch_up_soon()


def _rows_hint(
    *,
    document_id: int,
    epoch: int,
    first_seq: int,
    last_seq: int,
    update: bytes,
    behind: bytes,
    hash_: bytes,
    process: str,
    authors: Sequence[Identity] = (),
) -> dict[str, Any]:
    last_first = dict.fromkeys(reversed(authors))
    return {
        "type": "doc_update",
        "document": document_id,
        "epoch": epoch,
        "first_seq": first_seq,
        "last_seq": last_seq,
        "update": update if len(update) <= conf().hint_bytes_max else b"",
        "behind": behind,
        "hash": hash_,
        "process": process,
        "authors": [[each.user, each.name] for each in reversed(list(last_first)[:AUTHORS_TOLD_MAX])],
    }


def signed(message: dict[str, Any]) -> dict[str, Any]:
    return message | {"signature": _signature(message)}


def is_genuine(message: dict[str, Any]) -> bool:
    return hmac.compare_digest(message.get("signature", b""), _signature(message))


def _signature(message: dict[str, Any]) -> bytes:
    """HMAC-SHA256 under a key derived from SECRET_KEY: nobody else on the channel layer can make an editor show what
    the log does not hold, or people who are not there."""
    fields = {name: message[name] for name in sorted(message) if name != "signature"}
    carried = {name: value for name, value in fields.items() if isinstance(value, bytes)}
    # Of bytes the length stands among the other fields: none can be moved from one field to the next.
    plain = json.dumps(fields | {name: len(value) for name, value in carried.items()}).encode()
    key = hashlib.sha256(b"palimpsest.bus:" + settings.SECRET_KEY.encode()).digest()
    return hmac.digest(key, b"\0".join([plain, *carried.values()]), "sha256")


def _parts(claims: Sequence[Claim]) -> Iterator[Sequence[Claim]]:
    """Cut what there is to tell into messages of at most HINT_BYTES_MAX, a claim that is larger alone."""
    first, size = 0, 0
    for place, claim in enumerate(claims):
        size += (claim_bytes := len(encode_claims([claim])))
        if size > conf().hint_bytes_max and place > first:
            yield claims[first:place]
            first, size = place, claim_bytes
    if claims:
        yield claims[first:]


# Server-side writes and changes of rights happen anywhere: in a view, a task, the shell. They are told on commit.


def connect_signals() -> None:
    log_appended.connect(_on_log_appended)
    rights_changed.connect(_on_rights_changed)
    accounts_changed.connect(_on_accounts_changed)


def _on_log_appended(*, document_id: int, stored: Stored, update: bytes, actor: Any | None, **_: Any) -> None:
    hint = _rows_hint(
        document_id=document_id,
        epoch=stored.epoch,
        first_seq=stored.first_seq,
        last_seq=stored.seq,
        update=update if stored.first_seq == stored.seq else b"",
        behind=stored.behind,
        hash_=stored.hash,
        process="",
        authors=[identity_of(actor)],
    )
    send_now(document_group(document_id), hint)


def _on_rights_changed(*, document_id: int, **_: Any) -> None:
    send_now(document_group(document_id), {"type": "rights", "document": document_id})


class _AccountsTold:
    """Keeps a transaction over thousands of accounts from sending thousands of messages: whoever hears one looks again
    RECHECK_PAUSE_SECONDS later, which is when what it was silent about has happened."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since = 0.0
        self._count = 0

    def name_for(self, user_key: Any) -> str | None:
        """What to call the account in a message; None where no message is needed."""
        now = time.monotonic()
        with self._lock:
            if now - self._since > conf().recheck_pause_seconds:
                self._since, self._count = now, 0
            self._count += 1
            if self._count > ACCOUNTS_TOLD_MAX:
                return EVERYONE if self._count == ACCOUNTS_TOLD_MAX + 1 else None
        return str(user_key)


_accounts_told = _AccountsTold()


def _on_accounts_changed(*, user_key: Any, **_: Any) -> None:
    name = _accounts_told.name_for(user_key)
    if name is not None:
        send_now(PROCESSES_GROUP, {"type": "accounts", "user": name})


async def _group_send(group: str, message: dict[str, Any]) -> None:
    async with asyncio.timeout(conf().layer_timeout_seconds):
        await get_channel_layer().group_send(group, message)


def send_now(group: str, message: dict[str, Any]) -> None:
    """Send to a group, signed, from code that is not async. Never fails, and takes LAYER_TIMEOUT_SECONDS at most."""
    if get_channel_layer() is None:
        return
    try:
        async_to_sync(_group_send)(group, signed(message))
    except Exception as error:  # noqa: BLE001  (whatever a layer or a database raises)
        # The commit stands; the watch of every process finds it within HEAD_CHECK_SECONDS.
        logger.info("channel layer: a hint was not sent: %s", type(error).__name__)
