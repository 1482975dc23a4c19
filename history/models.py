"""The tables of the log and of all that is folded from it. Every key of history starts with the document.

`history_update` and `history_segment` are the truth; `Snapshot` rows may all be deleted at any time."""

from django.conf import settings
from django.db import models

from documents.models import Document


class Via(models.IntegerChoices):
    """Through which door a session came."""

    WEBSOCKET = 1, "websocket"
    JSON = 2, "json"
    API = 3, "api"
    ADMIN = 4, "admin"
    TASK = 5, "task"
    CHANNEL = 6, "channel"
    IMPORT = 7, "import"
    PAGE = 8, "page"


class Kind(models.IntegerChoices):
    """What kind of act an update is."""

    SYNC = 1, "sync"
    EDIT = 2, "edit"
    RESTORE = 3, "restore"
    UNDO = 4, "undo"
    IMPORT = 5, "import"
    SEED = 6, "seed"
    SPLIT = 7, "split"


ACT_KINDS = (Kind.RESTORE, Kind.UNDO)
"""What gives back or takes back, and can be given back and taken back itself."""


class Action(models.IntegerChoices):
    """What was done with a document besides editing it. Restores and undoings are rows of the log, not of these."""

    CREATED = 1, "created"
    OPENED = 2, "opened"
    RENAMED = 3, "renamed"
    MEMBER_ADDED = 4, "shared"
    ROLE_CHANGED = 5, "role changed"
    MEMBER_REMOVED = 6, "member removed"
    OPENED_TO_ALL = 7, "opened to all"
    CLOSED_TO_ALL = 8, "closed to all"
    DELETED = 9, "deleted"
    RECOVERED = 10, "recovered"
    ERASED = 11, "erased"
    EXPORTED = 12, "exported"
    COPIED = 13, "copied"
    VERSION_NAMED = 14, "version named"
    VERSION_RENAMED = 15, "version renamed"
    VERSION_LOCKED = 16, "version locked"
    VERSION_UNLOCKED = 17, "version unlocked"
    VERSION_DELETED = 18, "version deleted"
    WRITE_REFUSED = 19, "write refused"
    AUTHOR_MATCHED = 20, "author matched"


class Head(models.Model):
    """The end of a document's log. Every append locks this row: gapless numbering, commit order = seq order."""

    document = models.OneToOneField(Document, primary_key=True, on_delete=models.CASCADE, related_name="head")
    seq = models.BigIntegerField(default=0)
    hash = models.BinaryField(default=b"", max_length=32)
    at = models.DateTimeField()
    epoch = models.BigIntegerField(default=1)

    def __str__(self) -> str:
        return f"{self.document_id}@{self.seq}"


class Session(models.Model):
    """One author's connection or server-side act on one document: who, from where, through what.

    Stored with its first update. `commitment` = sha256(salt ‖ user ‖ via ‖ ip) is what the chain hashes of it."""

    pk = models.CompositePrimaryKey("document_id", "id")
    document = models.ForeignKey(Document, on_delete=models.CASCADE, related_name="+", db_index=False)
    id = models.BigIntegerField()
    user = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    via = models.PositiveSmallIntegerField(choices=Via.choices)
    ip = models.GenericIPAddressField(null=True)
    user_agent = models.CharField(max_length=200, blank=True)
    salt = models.BinaryField(max_length=16)
    commitment = models.BinaryField(max_length=32)
    opened_at = models.DateTimeField()
    detail = models.JSONField(default=dict)

    def __str__(self) -> str:
        return f"{self.document_id}/{self.id} {self.get_via_display()}"


class ImportedAuthor(models.Model):
    """Of a document whose whole history was imported: which account here is the one of this key in the database that it
    was exported from. The commitments of the sessions of rows 1..last_seq are of such keys.

    No hash covers it; the audit was told of each. An account that is deleted leaves its rows without a user."""

    id = models.BigAutoField(primary_key=True)
    document = models.ForeignKey(Document, on_delete=models.CASCADE, related_name="+")
    key = models.CharField(max_length=64)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    last_seq = models.BigIntegerField()

    class Meta:
        default_permissions = ()
        constraints = [models.UniqueConstraint(fields=["document", "key", "user"], name="history_imported_author_once")]

    def __str__(self) -> str:
        return f"{self.document_id} {self.key}"


class Update(models.Model):
    """One row of the log: what one session sent in one batch.

    No foreign keys: the append holds the head's lock, and a check of each row would double its cost."""

    pk = models.CompositePrimaryKey("document_id", "seq")
    document = models.ForeignKey(
        Document, on_delete=models.CASCADE, related_name="+", db_index=False, db_constraint=False
    )
    seq = models.BigIntegerField()
    session_id = models.BigIntegerField()
    kind = models.PositiveSmallIntegerField(choices=Kind.choices)
    at = models.DateTimeField()
    payload = models.BinaryField()
    hash = models.BinaryField(max_length=32)

    class Meta:
        indexes = [
            # Acts are few: the index costs an edit nothing, and spares looking for them among a million.
            models.Index(fields=["document", "seq"], condition=models.Q(kind__in=ACT_KINDS), name="history_update_act")
        ]

    def __str__(self) -> str:
        return f"{self.document_id}@{self.seq}"


class Split(models.Model):
    """A character that an edit cut in two, named by its low surrogate: every fold at a later seq reads it as U+FFFD
    U+FFFD. A projection of the rows of `Kind.SPLIT`, written with them; `seq` is that row's."""

    pk = models.CompositePrimaryKey("document_id", "client", "clock")
    document = models.ForeignKey(Document, on_delete=models.CASCADE, related_name="+", db_index=False)
    client = models.BigIntegerField()
    clock = models.BigIntegerField()
    seq = models.BigIntegerField()

    def __str__(self) -> str:
        return f"{self.document_id} {self.client}:{self.clock}@{self.seq}"


class Client(models.Model):
    """Whose a Yjs client id is in one document: the first who writes under it owns it, in all processes.

    `actor` is the user's key as text; empty for nobody, from whom the next one takes it over."""

    pk = models.CompositePrimaryKey("document_id", "client_id")
    document = models.ForeignKey(Document, on_delete=models.CASCADE, related_name="+", db_index=False)
    client_id = models.BigIntegerField()
    actor = models.CharField(max_length=64, blank=True)

    def __str__(self) -> str:
        return f"{self.document_id} {self.client_id}"


class Refusal(models.Model):
    """What one session sent and the log did not take: kept for a while, because it may be somebody's work.

    For each session and reason, parts of bounded size, from 0 on. `payload` is the updates (v1) one behind the other,
    each with its length before it (lib0 varBytes), exactly as they came: nothing but their form has been checked."""

    pk = models.CompositePrimaryKey("document_id", "session_id", "reason", "part")
    document = models.ForeignKey(Document, on_delete=models.CASCADE, related_name="+", db_index=False)
    session_id = models.BigIntegerField()
    reason = models.CharField(max_length=32)
    part = models.IntegerField(default=0)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    ip = models.GenericIPAddressField(null=True)
    first_at = models.DateTimeField()
    last_at = models.DateTimeField()
    updates = models.IntegerField()
    payload = models.BinaryField()
    clients = models.JSONField(default=list)

    class Meta:
        indexes = [models.Index(fields=["last_at"], name="history_refusal_last_at")]

    def __str__(self) -> str:
        return f"{self.document_id}/{self.session_id} {self.reason}"


class Request(models.Model):
    """The name of a server-side act that is in the log: the same act sent twice is stored once."""

    pk = models.CompositePrimaryKey("document_id", "actor", "key")
    document = models.ForeignKey(Document, on_delete=models.CASCADE, related_name="+", db_index=False)
    actor = models.CharField(max_length=64, blank=True)
    key = models.CharField(max_length=200)
    seq = models.BigIntegerField()

    def __str__(self) -> str:
        return f"{self.document_id} {self.key}"


class Segment(models.Model):
    """A squashed run of the log: packed, lossless, immutable. Seqs first_seq..last_seq, both inclusive."""

    pk = models.CompositePrimaryKey("document_id", "first_seq")
    document = models.ForeignKey(Document, on_delete=models.CASCADE, related_name="+", db_index=False)
    first_seq = models.BigIntegerField()
    last_seq = models.BigIntegerField()
    first_at = models.DateTimeField()
    last_at = models.DateTimeField()
    codec = models.PositiveSmallIntegerField()
    payload = models.BinaryField()
    start_hash = models.BinaryField(max_length=32)
    end_hash = models.BinaryField(max_length=32)
    counts = models.JSONField(default=dict)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=models.Q(last_seq__gte=models.F("first_seq")), name="history_segment_order"
            )
        ]

    def __str__(self) -> str:
        return f"{self.document_id}@{self.first_seq}..{self.last_seq}"


class Run(models.Model):
    """Consecutive updates of one session inside one segment: what a person reads as one edit. Written at squash.

    `inserted` and `deleted` count what its updates brought and took away: see `updates.extent`."""

    pk = models.CompositePrimaryKey("document_id", "first_seq")
    document = models.ForeignKey(Document, on_delete=models.CASCADE, related_name="+", db_index=False)
    session_id = models.BigIntegerField()
    first_seq = models.BigIntegerField()
    last_seq = models.BigIntegerField()
    first_at = models.DateTimeField()
    last_at = models.DateTimeField()
    kind = models.PositiveSmallIntegerField(choices=Kind.choices)
    updates = models.IntegerField()
    bytes = models.BigIntegerField()
    inserted = models.BigIntegerField()
    deleted = models.BigIntegerField()

    class Meta:
        indexes = [
            models.Index(fields=["document", "last_at"], name="history_run_last_at"),
            models.Index(
                fields=["document", "last_seq"], condition=models.Q(kind__in=ACT_KINDS), name="history_run_act"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.document_id}@{self.first_seq}..{self.last_seq}"


class Snapshot(models.Model):
    """The folded document at a seq; a cache. `state` is gc'd and opens documents; `full_state` keeps what was deleted
    and is what writing starts from, so that only the newest one has it, the others b"". Both are zstd frames; with
    a `base_seq`, the state is a difference to that snapshot's, with which the database deletes it.

    `state_bytes` is the state's size unpacked. sha256 is of state ‖ full_state as stored. `ladder_built`: since this
    became the newest snapshot and the log was last squashed, the older ones have been put in their places."""

    pk = models.CompositePrimaryKey("document_id", "seq")
    document = models.ForeignKey(Document, on_delete=models.CASCADE, related_name="+", db_index=False)
    seq = models.BigIntegerField()
    base_seq = models.BigIntegerField(null=True)
    state = models.BinaryField()
    state_bytes = models.BigIntegerField()
    full_state = models.BinaryField(default=b"")
    sha256 = models.BinaryField(max_length=32)
    created_at = models.DateTimeField()
    ladder_built = models.BooleanField(default=False)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=models.Q(base_seq__lt=models.F("seq")), name="history_snapshot_base_before"
            )
        ]

    def __str__(self) -> str:
        return f"{self.document_id}@{self.seq}"


class Manifest(models.Model):
    """That the manifest of a day (UTC) was published, so that one a day is. It proves nothing: what was published does.

    `sha256` is of all that was signed; the next manifest names it as its previous one."""

    day = models.DateField(primary_key=True)
    sha256 = models.BinaryField(max_length=32)
    documents = models.BigIntegerField()
    key_id = models.CharField(max_length=16)
    created_at = models.DateTimeField()
    published_at = models.DateTimeField()

    def __str__(self) -> str:
        return str(self.day)


VERSION_NAME_LENGTH_MAX = 200
VERSION_NOTE_LENGTH_MAX = 2000


class Version(models.Model):
    """A seq that a person named, or (`automatic`, without a name) that was kept by itself while they worked.

    `at` is when that seq was stored; None at 0. A locked one changes in nothing but its lock: triggers refuse it, so
    that raw SQL does not get past either; it goes with its document. Times and author are those of the naming."""

    pk = models.CompositePrimaryKey("document_id", "id")
    document = models.ForeignKey(Document, on_delete=models.CASCADE, related_name="+", db_index=False)
    id = models.BigIntegerField()
    seq = models.BigIntegerField()
    at = models.DateTimeField(null=True)
    name = models.CharField(max_length=VERSION_NAME_LENGTH_MAX, blank=True)
    note = models.CharField(max_length=VERSION_NOTE_LENGTH_MAX, blank=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField()
    locked = models.BooleanField(default=False)
    automatic = models.BooleanField(default=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["document", "name"], condition=models.Q(automatic=False), name="history_version_name"
            ),
            models.UniqueConstraint(
                fields=["document", "seq"], condition=models.Q(automatic=True), name="history_version_once"
            ),
            models.CheckConstraint(
                condition=models.Q(automatic=True, name="") | models.Q(automatic=False) & ~models.Q(name=""),
                name="history_version_named",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.document_id}@{self.seq} {self.id}"


class AuditHead(models.Model):
    """The end of a document's audit, and where it begins since its oldest entries went: entry `removed_n` was the last
    of those. Kept when the document is gone, and so not bound to it; document 0 is for acts on no one document.

    A row of its own: what is written here holds up no edit."""

    document_id = models.BigIntegerField(primary_key=True)
    key = models.UUIDField()
    n = models.BigIntegerField(default=0)
    hash = models.BinaryField(default=b"", max_length=32)
    at = models.DateTimeField()
    removed_n = models.BigIntegerField(default=0)
    removed_hash = models.BinaryField(default=b"", max_length=32)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=models.Q(removed_n__lte=models.F("n")), name="history_audit_removed")
        ]

    def __str__(self) -> str:
        return f"audit of {self.document_id}, {self.removed_n + 1}..{self.n}"


class AuditEntry(models.Model):
    """One act: the n-th of its document, from 1, chained as the log is. `commitment` = sha256(salt ‖ user ‖ via ‖ ip)
    is what the chain hashes of who it was; a person is made pseudonymous by dropping salt and user, as an account that
    is deleted drops the user. `detail` may be erased: its digest stays."""

    pk = models.CompositePrimaryKey("document_id", "n")
    document_id = models.BigIntegerField()
    n = models.BigIntegerField()
    action = models.PositiveSmallIntegerField(choices=Action.choices)
    at = models.DateTimeField()
    # No constraint: an act must not fail because the account that did it went in the same transaction.
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        on_delete=models.SET_NULL,
        related_name="+",
        db_constraint=False,
        db_index=False,
    )
    via = models.PositiveSmallIntegerField(choices=Via.choices)
    ip = models.GenericIPAddressField(null=True)
    salt = models.BinaryField(max_length=16)
    commitment = models.BinaryField(max_length=32)
    detail = models.JSONField(null=True)
    detail_sha256 = models.BinaryField(max_length=32)
    hash = models.BinaryField(max_length=32)

    class Meta:
        indexes = [
            models.Index(fields=["at", "document_id", "n"], name="history_audit_at"),
            models.Index(fields=["user", "at"], name="history_audit_user"),
            models.Index(fields=["document_id", "action", "at"], name="history_audit_action"),
        ]

    def __str__(self) -> str:
        return f"{self.document_id}#{self.n} {self.get_action_display()}"


class DocumentHistory(Document):
    """A document, seen as its history. It and `Edit` are for the admin, but stand here: in a project without the
    admin nobody would import them, and `makemigrations` would take them for deleted."""

    class Meta:
        proxy = True
        default_permissions = ()
        verbose_name = "document history"
        verbose_name_plural = "document histories"


class Edit(Document):
    """The way into the list of who did what: a line of it is a run or an entry, which no one table has."""

    class Meta:
        proxy = True
        default_permissions = ()
        verbose_name = "edit"
        verbose_name_plural = "audit: who did what"
