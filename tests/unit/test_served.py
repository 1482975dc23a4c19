"""The document of a room in the hands of a consumer: who observes it, who may edit it, and what is left of it."""

import asyncio
import gc
import weakref
from collections.abc import Coroutine
from typing import Any

import pytest
from pycrdt import Doc, Text, TransactionEvent

from realtime.served import ServedDoc
from tests.builders import typed


def run_nowhere(work: Coroutine[Any, Any, None]) -> None:
    raise AssertionError("no observer of these is async")


def text_of(doc: "Doc[Any]") -> str:
    return str(doc.get("text", type=Text))


class Maker:
    """Keeps what it observes, as a consumer may."""

    def __init__(self) -> None:
        self.doc: Doc[Any] = Doc()
        self.text = self.doc.get("text", type=Text)
        self.seen: list[bytes] = []
        self.deltas: list[Any] = []

    def observe(self) -> None:
        self.doc.observe(self.on_update_event)
        self.text.observe(self.on_text)

    def on_update_event(self, event: TransactionEvent) -> None:
        self.seen.append(event.update)

    def on_text(self, event: Any) -> None:
        self.deltas += event.delta


def test_observers_are_told_once_of_what_the_log_held_and_of_each_update_after_it() -> None:
    maker = Maker()
    maker.observe()
    served = ServedDoc(maker.doc, spawn=run_nowhere, made=maker.doc, maker=maker)
    *before, last = typed("abc")
    held: Doc[Any] = Doc()
    for update in before:
        held.apply_update(update)
    served.begin(held.get_update())
    assert len(maker.seen) == 1
    served.feed(last)
    assert maker.seen[1:] == [last]
    assert maker.deltas == [{"insert": "ab"}, {"retain": 2}, {"insert": "c"}]


def test_what_a_consumer_begins_with_in_vain_is_not_served_and_its_observers_see_what_is() -> None:
    maker = Maker()
    maker.text.insert(0, "Dear ")
    maker.observe()
    first, second = typed("ab")
    folded: Doc[Any] = Doc()
    folded.apply_update(first)
    served = ServedDoc(folded, spawn=run_nowhere, made=maker.doc, maker=maker)
    served.begin(first)
    served.feed(second)
    assert text_of(served.doc) == str(maker.text) == "ab"
    assert (len(maker.seen), maker.seen[1:]) == (2, [second])
    assert maker.deltas[-1] == {"insert": "b"}


@pytest.mark.parametrize("fault", ["an error of its own", "a look into the document, which pycrdt does not bear"])
def test_an_observer_that_raises_takes_nothing_from_the_document(caplog: pytest.LogCaptureFixture, fault: str) -> None:
    doc: Doc[Any] = Doc()

    def fail(event: TransactionEvent) -> None:
        if fault.startswith("a look"):
            text_of(doc)
        raise ValueError("words of a document")

    doc.observe(fail)
    served = ServedDoc(doc, spawn=run_nowhere, made=doc)
    for update in typed("ab"):
        served.feed(update)
    assert text_of(doc) == "ab"
    error = "RuntimeError" if fault.startswith("a look") else "ValueError"
    assert caplog.messages == [f"an observer of a room's document raised {error}"] * 2


async def test_an_async_observer_runs_in_the_background() -> None:
    doc: Doc[Any] = Doc()
    seen: list[bytes] = []
    tasks: list[asyncio.Task[None]] = []

    async def observe(event: TransactionEvent) -> None:
        await asyncio.sleep(0)
        seen.append(event.update)

    doc.observe(observe)
    served = ServedDoc(doc, spawn=lambda work: tasks.append(asyncio.create_task(work)), made=doc)
    updates = typed("ab")
    for update in updates:
        served.feed(update)
    await asyncio.gather(*tasks)
    assert seen == updates


def test_an_update_applied_to_a_lent_document_is_handed_over_and_the_rest_is_shared() -> None:
    served = ServedDoc(Doc(), spawn=run_nowhere)
    taken: list[bytes] = []
    lent = served.lend(taken.append, [])
    (update,) = typed(["words"])
    lent.apply_update(update)
    assert (taken, text_of(lent)) == ([update], "")
    served.feed(update)
    assert isinstance(lent, Doc) and text_of(lent) == "words"
    assert lent.get_update() == served.doc.get_update()


def test_whoever_observes_a_lent_document_can_end_that_and_no_other_observer() -> None:
    seen: list[str] = []
    doc: Doc[Any] = Doc()
    doc.observe(lambda event: seen.append("for good"))
    served = ServedDoc(doc, spawn=run_nowhere, made=doc)
    observers: list[Any] = []
    served.lend(lambda update: None, observers).observe(lambda event: seen.append("for a while"))
    first, second = typed("ab")
    served.feed(first)
    assert sorted(seen) == ["for a while", "for good"]  # yrs calls them in any order
    seen.clear()
    served.end(observers)
    served.feed(second)
    assert seen == ["for good"]


def test_an_edit_past_the_log_is_noticed_and_the_logs_own_are_not() -> None:
    served = ServedDoc(Doc(), spawn=run_nowhere)
    noticed: list[None] = []
    for _ in range(2):
        served.watch(lambda: noticed.append(None))
    lent = served.lend(lambda update: None, [])
    first, second = typed("ab")
    served.feed(first)
    text = lent.get("text", type=Text)
    assert (str(text), lent.get_state() != b"\x00", noticed) == ("a", True, [])
    text.insert(0, "x")
    assert len(noticed) == 1
    served.feed(second)
    assert len(noticed) == 1


@pytest.mark.parametrize("is_released", [True, False])
def test_a_released_document_is_freed_with_all_that_observed_it(is_released: bool) -> None:
    def use() -> list["weakref.ref[Any]"]:
        maker = Maker()
        maker.observe()
        served = ServedDoc(maker.doc, spawn=run_nowhere, made=maker.doc, maker=maker)
        lent = served.lend(lambda update: None, [])
        lent.observe(maker.on_update_event)
        served.watch(lambda: None)
        served.feed(typed("a")[0])
        if is_released:
            served.release()
        return [weakref.ref(each) for each in (served, maker, maker.doc, maker.text)]

    left = use()
    gc.collect()
    assert [each() is None for each in left] == [is_released] * 4
