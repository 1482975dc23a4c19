"""Pens: what a socket without a CRDT writes with. Each has a Yjs client id of the server's making, and a fork of the
document as of some seq on which the next edit is made.

A client id is used again once its last row is within the base of the next edit: a fresh one for each would grow every
handshake. Forks are bounded over all rooms of a process, and made anew from the room or the log."""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from secrets import randbits
from typing import Any
from weakref import WeakKeyDictionary

from pycrdt import Doc

from documents.conf import conf
from history.folds import document_at
from realtime.hub import Hub

PENS_MAX = 8
"""Of one socket: who sends so many edits on one base without waiting for their seqs gives up the oldest client id."""

FORK_BYTES_MIN = 16 * 1024
"""What a fork counts at least."""


@dataclass(slots=True, eq=False)
class Pen:
    """`last_seq` is that of the last row under its client id; `doc` holds the document as of `seq`, and that row."""

    client_id: int = field(default_factory=lambda: randbits(32))
    last_seq: int = 0
    doc: "Doc[Any] | None" = None
    seq: int = 0
    generation: int = 0

    def take_over(self, updates: Iterable[bytes], seq: int) -> None:
        """Bring the fork to a later seq."""
        assert self.doc is not None
        for update in updates:
            self.doc.apply_update(update)
        self.seq = seq


class Pens:
    """Those of one socket."""

    def __init__(self) -> None:
        self._pens: list[Pen] = []

    def pick(self, base: int, forks: "Forks") -> Pen:
        """A pen with which an edit on `base` can be written; the one whose fork is nearest."""
        free = [pen for pen in self._pens if pen.last_seq <= base]
        with_fork = [pen for pen in free if pen.doc is not None and pen.seq <= base]
        if free:
            pen = max(with_fork, key=lambda pen: pen.seq) if with_fork else free[0]
            self._pens.remove(pen)
        else:
            if len(self._pens) == PENS_MAX:
                forks.drop(self._pens.pop(0))
            pen = Pen()
        self._pens.append(pen)
        return pen

    def lose(self, pen: Pen) -> None:
        """Whether what it wrote is in the log is not known: its client id is never used again."""
        if pen in self._pens:
            self._pens.remove(pen)

    def put_away(self, forks: "Forks") -> None:
        """The socket has ended."""
        for pen in self._pens:
            forks.drop(pen)
        self._pens.clear()


class Forks:
    """The forks of one process, those used longest ago first. Each counts the bytes that its document has, stored."""

    def __init__(self) -> None:
        self._sizes: OrderedDict[Pen, int] = OrderedDict()
        self._bytes = 0

    def keep(self, pen: Pen, size: int) -> None:
        """Keep a pen's new fork, and as many others as there is place for."""
        self._forget(pen)
        self._sizes[pen] = max(size, FORK_BYTES_MIN)
        self._bytes += self._sizes[pen]
        while self._bytes > conf().forks_bytes_max and len(self._sizes) > 1:
            self.drop(next(iter(self._sizes)))

    def touch(self, pen: Pen) -> None:
        """A pen's fork is used."""
        self._sizes.move_to_end(pen)

    def drop(self, pen: Pen) -> None:
        self._forget(pen)
        pen.doc = None

    def _forget(self, pen: Pen) -> None:
        self._bytes -= self._sizes.pop(pen, 0)


_forks: "WeakKeyDictionary[Hub, Forks]" = WeakKeyDictionary()


def forks_of(hub: Hub) -> Forks:
    return _forks.setdefault(hub, Forks())


def state_at(document_id: int, seq: int) -> bytes:
    """The document as of a seq, as one update. Reads the database. Raises: NoSuchSeq, LogHole."""
    return document_at(document_id, seq=seq).doc.get_update()


def fork(state: bytes, client_id: int) -> "Doc[Any]":
    doc: Doc[Any] = Doc(client_id=client_id)
    doc.apply_update(state)
    return doc
