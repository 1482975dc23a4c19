"""What can go wrong with a log. Each error carries the ids that find the row, never content."""


class HistoryError(Exception):
    """Base of what this floor raises."""


class LogUnavailable(HistoryError):
    """The database could not be asked; nothing of the batch is stored. Try again later."""


class OutcomeUnknown(HistoryError):
    """The connection was lost while COMMIT was under way: the batch is stored whole or not at all. Never retry it
    blindly; read the log."""


class WrongIsolation(HistoryError):
    """An append in a transaction above READ COMMITTED is not made: it would not see a right that was just taken."""


class LogHole(HistoryError):
    """A seq that must be in the log is in neither rows nor segments."""

    def __init__(self, document_id: int, seq: int) -> None:
        super().__init__(f"document {document_id}: seq {seq} is not in the log; run `manage.py verify_history`")
        self.document_id = document_id
        self.seq = seq


class NoSuchSeq(HistoryError):
    """A moment was asked for that the log does not have."""

    def __init__(self, document_id: int, seq: int, head: int) -> None:
        super().__init__(f"document {document_id} has seqs 0 to {head}, not {seq}")
        self.document_id = document_id
        self.seq = seq


class UpdateRefused(HistoryError):
    """A server-side write was not taken; `reason` says why."""

    def __init__(self, document_id: int, reason: str) -> None:
        super().__init__(f"document {document_id}: {reason}")
        self.document_id = document_id
        self.reason = reason
