"""Large frames: who may send them, and that the event loop and every other room go on while one is judged."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from pycrdt import Doc, Text

from documents.conf import conf
from documents.models import Role
from history.crdt.guard import Guard, Verdict
from history.crdt.splits import Splits
from history.crdt.updates import MissingDependency
from history.fates import Reason
from history.gate import Gate, GateBroken
from history.models import Kind
from history.sessions import WriteSession
from realtime.hub import Hub
from realtime.protocols.frames import encode_sync_step2, encode_update
from tests.builders import admitted_session, append_rows, make_session
from tests.integration.realtime.rooms import (
    HeldAppend,
    empty,
    eventually,
    folded_text,
    log_lacks_nothing,
    rows_of,
    shared_document,
    stored,
    update_that_types,
)
from tests.integration.realtime.sockets import Socket, ada_and_bob

pytestmark = [pytest.mark.django_db(transaction=True)]

LARGE = "x" * 100_000

BETWEEN_THE_HALVES = b"\x01\x01\x02\x00\xc4\x01\x01\x01\x02\x01x\x00"
"""Client 2 types an x into the emoji that client 1 wrote second."""


class HeldTake:
    """A gate's `take` that stops, on a thread, at the next large update; small ones pass."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.under_way, self.may_go_on = threading.Event(), threading.Event()
        self.threads: list[str] = []
        self.inside = 0
        self.inside_max = 0
        take, follow = Gate.take, Gate.follow

        def held(gate: Gate, update: bytes, session: WriteSession, **limits: Any) -> Any:
            self.inside += 1
            self.inside_max = max(self.inside, self.inside_max)
            try:
                if len(update) > conf().off_loop_bytes:
                    self.threads.append(threading.current_thread().name)
                    self.under_way.set()
                    assert self.may_go_on.wait(10)
                return take(gate, update, session, **limits)
            finally:
                self.inside -= 1

        def counted(gate: Gate, seq: int, update: bytes, **rest: Any) -> None:
            self.inside_max = max(self.inside + 1, self.inside_max)
            follow(gate, seq, update, **rest)

        monkeypatch.setattr(Gate, "take", held)
        monkeypatch.setattr(Gate, "follow", counted)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[HeldTake]:
    held = HeldTake(monkeypatch)
    yield held
    held.may_go_on.set()


async def test_long_offline_work_comes_home_in_one_frame_of_somebody_who_may_write(hub: Hub, no_watch: None) -> None:
    document, people = await shared_document(ada=Role.OWNER, eve=Role.VIEWER)
    update = update_that_types("y" * (conf().frame_bytes_max + 1), client_id=5)
    async with Socket(document.name, user=people["ada"]) as ada, Socket(document.name, user=people["eve"]) as eve:
        await asyncio.gather(ada.until_synced(), eve.until_synced())
        eve.send(encode_sync_step2(update))
        await eve.until(lambda: eve.denied == 1)
        assert eve.closed is None
        ada.send(encode_sync_step2(update))
        await eve.until(lambda: len(eve.text) == conf().frame_bytes_max + 1)
    assert len(await rows_of(document)) == 1


@pytest.mark.parametrize("role", [Role.OWNER, Role.VIEWER])
async def test_no_other_frame_may_be_so_long(hub: Hub, no_watch: None, role: Role) -> None:
    document, people = await shared_document(ada=role)
    long = update_that_types("y" * conf().frame_bytes_max, client_id=5)
    two_messages = encode_update(long) + encode_update(b"\0\0")
    awareness = b"\x01" + bytes(conf().frame_bytes_max)
    too_long = encode_update(bytes(conf().sync_frame_bytes_max))
    for frame in (two_messages, awareness, too_long):
        async with Socket(document.name, user=people["ada"]) as ada:
            await ada.until_synced()
            ada.send(frame)
            await ada.until(lambda: ada.closed is not None)
            assert ada.closed == 1009
    assert await rows_of(document) == []


@pytest.mark.parametrize("role", [Role.OWNER, Role.VIEWER])
async def test_an_update_of_too_many_parts_closes_its_socket_and_changes_nothing(
    hub: Hub, settings: Any, role: Role
) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "UPDATE_STRUCTS_MAX": 3}
    document, people = await shared_document(ada=role)
    async with Socket(document.name, user=people["ada"]) as ada:
        await ada.until_synced()
        ada.send(encode_update(b"\x01\x01\x01\x00\x08\x01\x01r\x05" + b"\x7e" * 5 + b"\x00"))
        await ada.until(lambda: ada.closed == 1009)
    assert await rows_of(document) == []


async def test_other_rooms_and_readers_go_on_while_a_large_frame_is_judged(
    hub: Hub, no_watch: None, held: HeldTake
) -> None:
    busy, people = await shared_document(ada=Role.OWNER, eve=Role.VIEWER)
    other, others = await shared_document(bob=Role.OWNER)
    async with (
        Socket(busy.name, user=people["ada"]) as ada,
        Socket(busy.name, user=people["eve"]) as eve,
        Socket(other.name, user=others["bob"]) as bob,
    ):
        await asyncio.gather(ada.until_synced(), eve.until_synced(), bob.until_synced())
        ada.type(LARGE)
        await eventually(held.under_way.is_set)
        bob.type("b")
        await stored(hub, other, 1)
        async with Socket(busy.name, user=people["eve"]) as late:
            await late.until_synced()
        assert await rows_of(busy) == []
        held.may_go_on.set()
        await eve.until(lambda: eve.text == LARGE)
    assert held.threads == ["compute_0"]


async def test_edits_that_come_while_a_large_one_is_judged_keep_their_order_and_never_meet_in_the_gate(
    hub: Hub, no_watch: None, held: HeldTake
) -> None:
    async with ada_and_bob() as (document, ada, bob):
        bob.type("0")
        await ada.until(lambda: ada.text == "0")
        append = HeldAppend(hub)
        bob.type("1", at=1)
        await append.under_way.wait()
        large = ada.type(LARGE, at=1)
        await eventually(held.under_way.is_set)
        bob.doc.apply_update(large)  # by another way than this server
        bob.type("2", at=len(bob.text))
        append.may_go_on.set()  # the row of "1" is followed by the gate only when the thread has given it back
        await stored(hub, document, 2)
        assert len(await rows_of(document)) == 2
        held.may_go_on.set()
        await stored(hub, document, 4)
        await ada.until(lambda: ada.text == bob.text)
        ada.type("3")
        await bob.until(lambda: bob.text.startswith("3"))
        assert (ada.closed, bob.closed) == (None, None)
    assert held.inside_max == 1
    assert len(await folded_text(document)) == len(LARGE) + 4
    assert await log_lacks_nothing(document)


async def test_nobody_meets_in_the_gate_while_it_is_told_what_of_a_large_update_may_be_taken(
    hub: Hub, no_watch: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    document, people = await shared_document(ada=Role.OWNER, bob=Role.EDITOR)
    under_way, may_go_on, part_of = threading.Event(), threading.Event(), Gate.part_of

    def held_part_of(gate: Gate, update: bytes, session: WriteSession) -> bytes | None:
        under_way.set()
        assert may_go_on.wait(10)
        return part_of(gate, update, session)

    async with Socket(document.name, user=people["ada"]) as ada, Socket(document.name, user=people["bob"]) as bob:
        await asyncio.gather(ada.until_synced(), bob.until_synced())
        ada.type("a")
        await bob.until(lambda: bob.text == "a")
        monkeypatch.setattr(Gate, "part_of", held_part_of)
        both: Doc[Any] = Doc(client_id=bob.doc.client_id)
        both.apply_update(update_that_types("not ada's", client_id=ada.doc.client_id))
        both.get("text", type=Text).insert(0, LARGE)
        bob.send(encode_sync_step2(both.get_update()))
        await eventually(under_way.is_set)
        ada.type("b", at=1)
        await eventually(lambda: hub.rooms[document.pk].judge._in_line == 2)
        assert len(await rows_of(document)) == 1
        may_go_on.set()
        await ada.until(lambda: ada.text.startswith(LARGE) or ada.text.endswith(LARGE))
        await stored(hub, document, 3)
    assert len(await folded_text(document)) == len(LARGE) + 2


async def test_a_large_edit_is_judged_again_where_a_refusal_took_its_gate_away(
    hub: Hub, no_watch: None, held: HeldTake
) -> None:
    async with ada_and_bob() as (document, ada, bob):
        append = HeldAppend(hub, Reason.NOT_ALLOWED)
        bob.type("refused")
        await append.under_way.wait()
        ada.type(LARGE)
        await eventually(held.under_way.is_set)
        append.may_go_on.set()
        await bob.until(lambda: bob.denied == 1)
        held.may_go_on.set()
        await stored(hub, document, 1)
    assert await folded_text(document) == LARGE
    assert len(held.threads) == 2


async def test_a_gate_that_a_cancelled_task_left_to_its_thread_is_used_by_nobody_else(
    hub: Hub, no_watch: None, held: HeldTake
) -> None:
    document, people = await shared_document(ada=Role.OWNER)
    async with Socket(document.name, user=people["ada"]) as ada:
        await ada.until_synced()
        ada.type("a")
        await stored(hub, document, 1)
        room = hub.rooms[document.pk]
        session = await sync_to_async(admitted_session)(document, people["ada"])
        task = asyncio.create_task(room._take(session, update_that_types(LARGE, client_id=9)))
        await eventually(held.under_way.is_set)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        ada.type("b")
        await stored(hub, document, 2)
        held.may_go_on.set()
    assert await folded_text(document) == "ba"


async def test_a_large_update_that_is_refused_leaves_the_gate_and_one_that_breaks_it_does_not(
    hub: Hub, no_watch: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    document, people = await shared_document(ada=Role.OWNER)
    async with Socket(document.name, user=people["ada"]) as ada:
        await ada.until_synced()
        ada.type("a")
        await stored(hub, document, 1)
        room = hub.rooms[document.pk]
        gate = room.judge._gate
        editor: Doc[Any] = Doc(client_id=9)
        text = editor.get("text", type=Text)
        text.insert(0, "a")
        known = editor.get_state()
        text.insert(1, LARGE)
        session = await sync_to_async(admitted_session)(document, people["ada"])
        with pytest.raises(MissingDependency):
            await room._take(session, editor.get_update(known))
        assert room.judge._gate is gate
        monkeypatch.setattr("history.gate._apply", _panic)
        ada.type(LARGE)
        await ada.until(lambda: ada.closed == 1008)
        assert room.judge._gate is None
        monkeypatch.undo()
        async with Socket(document.name, user=people["ada"]) as again:
            await again.until_synced()
            again.type("b")
            await stored(hub, document, 2)
    assert await folded_text(document) == "ba"


def _panic(intake: Doc[Any], update: bytes) -> None:
    raise GateBroken("as after a panic")


async def test_a_large_row_that_another_process_stored_is_judged_on_a_thread(
    hub: Hub, no_watch: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    document, people = await shared_document(ada=Role.OWNER)
    judged_here: list[int] = []
    check, loop_thread = Guard.check, threading.current_thread()

    def noted(guard: Guard, update: bytes) -> Verdict:
        if threading.current_thread() is loop_thread:
            judged_here.append(len(update))
        return check(guard, update)

    monkeypatch.setattr(Guard, "check", noted)
    async with Socket(document.name, user=people["ada"]) as ada:
        await ada.until_synced()
        ada.type("a")
        ada.type("b")
        await stored(hub, document, 1)
        room = hub.rooms[document.pk]
        await eventually(lambda: str(room.doc.get("text", type=Text)) == "ba")
        rows = room.seq
        await sync_to_async(append_rows)(make_session(document), [update_that_types(LARGE, client_id=7)])
        await room.catch_up()
        ada.type("c")
        await stored(hub, document, rows + 2)
    assert judged_here and max(judged_here) < 100


async def test_a_large_document_is_read_anew_for_a_split_emoji_on_threads_in_every_process(
    hub: Hub, no_watch: None, another_process: Callable[[], Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    document, people = await shared_document(ada=Role.OWNER)
    session = await sync_to_async(make_session)(document)
    second = another_process()
    read_on: list[threading.Thread] = []
    intake_with = Gate._intake_with

    def noted(gate: Gate, splits: Splits, bytes_max: int | None) -> "Doc[Any]":
        intake = intake_with(gate, splits, bytes_max)
        if intake is not gate.intake:
            read_on.append(threading.current_thread())
        return intake

    monkeypatch.setattr(Gate, "_intake_with", noted)
    async with Socket(document.name, user=people["ada"]) as ada:
        await ada.until_synced()
        ada.send(encode_update(update_that_types("a😀" + LARGE, client_id=1)))
        await stored(hub, document, 1)
        room_of_second = await second.open(document.pk, empty)
        await room_of_second.write_and_wait(session, update_that_types("b", client_id=7), kind=Kind.EDIT)
        assert room_of_second.judge.has_gate
        await hub.rooms[document.pk].catch_up()
        ada.send(encode_update(BETWEEN_THE_HALVES))
        await stored(hub, document, 4)
        await room_of_second.catch_up()
        await room_of_second.write_and_wait(session, update_that_types("c", client_id=8), kind=Kind.EDIT)
    assert read_on and threading.current_thread() not in read_on
    assert "\ufffdx\ufffd" in await folded_text(document)


async def test_a_large_state_vector_is_read_on_a_thread(hub: Hub, no_watch: None) -> None:
    document, people = await shared_document(ada=Role.OWNER)
    loop_thread = threading.current_thread().name
    async with Socket(document.name, user=people["ada"]) as ada:
        await ada.until_synced()
        seen: list[str] = []
        compute = hub.compute

        async def noted(work: Any, *args: Any, **kwargs: Any) -> Any:
            def run() -> Any:
                seen.append(threading.current_thread().name)
                return work(*args, **kwargs)

            return await compute(run)

        hub.compute = noted  # type: ignore[method-assign]
        ada.send(b"\0\0" + b"\x80\x80\x08" + bytes(conf().off_loop_bytes))
        await ada.until(lambda: ada.closed == 1008)
    assert len(seen) == 1 and seen[0] != loop_thread
