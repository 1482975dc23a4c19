"""The document that a room serves, as code of one's own meets it: observed at will, edited by the log alone.

What `make_ydoc` of a consumer returns is served itself where the log holds all that is in it; else it is fed beside
the document that is served, for its observers. pycrdt frees no document that has an observer: `release` ends them."""

import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import suppress
from functools import partial
from typing import Any, TypeAlias, TypeVar

from pycrdt import Array, Doc, Map, Subscription, Text, XmlElement, XmlFragment, XmlText

from history.crdt.idsets import between, encode_id_set
from history.crdt.state_vectors import decode_state_vector

logger = logging.getLogger(__name__)

Spawn: TypeAlias = Callable[[Coroutine[Any, Any, None]], None]
"""Runs work in the background."""

Making = TypeVar("Making", bound=Callable[..., Awaitable["Doc[Any]"]])

NO_STRUCTS = b"\x00"
"""How an update begins that only deletes."""

_SharedType: TypeAlias = "Array[Any] | Map[Any] | Text | XmlElement | XmlFragment | XmlText"
_SHARED_TYPES = (Array, Map, Text, XmlElement, XmlFragment, XmlText)


def begins_empty(make_doc: Making) -> Making:
    """Mark a door's own `make_ydoc`: what it makes need not be made, and stands in no other consumer's way."""
    make_doc.begins_empty = True  # type: ignore[attr-defined]
    return make_doc


def own_making(make_doc: "Callable[[], Awaitable[Doc[Any]]] | None") -> "Callable[[], Awaitable[Doc[Any]]] | None":
    """None for one that is marked so."""
    return None if getattr(_method(make_doc), "begins_empty", False) else make_doc


def maker_of(make_doc: "Callable[[], Awaitable[Doc[Any]]]") -> object | None:
    """The consumer whose method it is."""
    return getattr(_method(make_doc), "__self__", None)


def _method(make_doc: object) -> object:
    return make_doc.func if isinstance(make_doc, partial) else make_doc


class ServedDoc:
    """`doc` is served. Lives on the event loop; `release` ends it.

    `made` is what a consumer, `maker`, has made, if it was not the room itself: `doc`, or another one."""

    def __init__(
        self, doc: "Doc[Any]", *, spawn: Spawn, made: "Doc[Any] | None" = None, maker: object | None = None
    ) -> None:
        self.doc = doc
        self._observed = doc if made is None else made
        self._maker = maker
        self._background = _Background(spawn)
        self._is_fed = False
        self._watch: Subscription | None = None
        self._edited: Callable[[], None] | None = None

    def begin(self, state: bytes) -> None:
        """Take over all that the log holds, one update; observers are told of it in one event. What else is in a
        document that is not served goes from it."""
        observed = self._observed
        if observed is self.doc:
            self._feed(observed, (state,))
        else:
            own = between({}, decode_state_vector(observed.get_state()))
            self._feed(observed, (NO_STRUCTS + encode_id_set(own), state))

    def feed(self, update: bytes) -> None:
        """Apply what is committed. Observers are told after the fact: what they raise is logged, and changes nothing.

        Raises: what pycrdt raises."""
        self._feed(self.doc, (update,))
        if self._observed is not self.doc:
            self._feed(self._observed, (update,))

    def _feed(self, doc: "Doc[Any]", updates: Iterable[bytes]) -> None:
        self._is_fed = True
        # pycrdt hands async observers to the task group of an async transaction, and fails where there is none.
        doc._task_group = self._background  # type: ignore[assignment]  # noqa: SLF001
        try:
            with doc.transaction():
                for update in updates:
                    doc.apply_update(update)
        except ExceptionGroup as errors:
            names = ", ".join(type(error).__name__ for error in errors.exceptions)
            logger.error("an observer of a room's document raised %s", names)
        finally:
            doc._task_group = None  # noqa: SLF001
            self._is_fed = False

    def watch(self, edited: Callable[[], None]) -> None:
        """Have `edited` called when somebody else than the log has edited what is served; it must not touch the
        document, whose transaction has not ended by then. A second watch changes nothing."""
        if self._watch is None:
            self._edited = edited
            self._watch = self.doc.observe(self._saw)

    def _saw(self, event: object) -> None:
        if not self._is_fed and self._edited is not None:
            self._edited()

    def lend(self, take: Callable[[bytes], None], observers: list[Subscription]) -> "Doc[Any]":
        """The document for somebody who may read and observe it; the updates that they apply to it are for `take`, and
        whatever observes it through them is added to `observers`, for `end`."""
        return _LentDoc(self.doc, take, observers)

    def end(self, observers: Iterable[Subscription]) -> None:
        """End some observers before the document ends."""
        for subscription in observers:
            subscription.drop()
            with suppress(ValueError):  # of a document that was served before
                self.doc._subscriptions.remove(subscription)  # noqa: SLF001

    def release(self) -> None:
        """End all observers: the document's, and those of the shared types that the maker has among its attributes."""
        kept = vars(self._maker).values() if hasattr(self._maker, "__dict__") else ()
        types = [each for each in kept if isinstance(each, _SHARED_TYPES) and self._is_of_these(each)]
        for observed in (self.doc, self._observed, *types):
            for subscription in observed._subscriptions:  # noqa: SLF001
                subscription.drop()  # twice is once
        self._edited = self._maker = None

    def _is_of_these(self, shared: "_SharedType") -> bool:
        """Whether it belongs to one of these documents, lent or not: a document that is lent shares its `__dict__`."""
        return shared.is_integrated and any(vars(shared.doc) is vars(doc) for doc in (self.doc, self._observed))


class _Background:
    """Takes async observers, as the task group of an async transaction does."""

    def __init__(self, spawn: Spawn) -> None:
        self._spawn = spawn

    def start_soon(self, observer: Callable[[object], Coroutine[Any, Any, None]], event: object) -> None:
        self._spawn(observer(event))


class _LentDoc(Doc[Any]):
    """A document that shares all but `apply_update` with another one, its transactions too."""

    __slots__ = ("_observers", "_take")

    def __init__(self, doc: "Doc[Any]", take: Callable[[bytes], None], observers: list[Subscription]) -> None:
        self.__dict__ = doc.__dict__
        self._take = take
        self._observers = observers

    def observe(self, callback: Any) -> Subscription:
        self._observers.append(super().observe(callback))
        return self._observers[-1]

    def observe_subdocs(self, callback: Any) -> Subscription:
        self._observers.append(super().observe_subdocs(callback))
        return self._observers[-1]

    def apply_update(self, update: bytes) -> None:
        """Line the update up for the log; the document holds it once that does."""
        self._take(update)
