"""Whatever the door, only what the guard let through and pycrdt re-emitted gets into the log and to others."""

from typing import Any

import pytest
from django.utils import timezone
from pycrdt import Doc, Text, merge_updates

from documents.models import Role
from history.crdt.folding import emitted_by
from history.crdt.guard import TYPE_DEPTH_MAX, Guard
from history.crdt.lib0 import var_string, var_uint
from history.crdt.splits import EMPTY_UPDATE, NO_SPLITS
from history.crdt.updates import decode_update
from history.errors import UpdateRefused
from history.fates import Base
from history.gate import Gate, TakesLong
from history.models import Via
from history.sessions import WriteSession
from realtime.hub import Hub
from realtime.protocols.frames import decode_frame, encode_update
from realtime.protocols.messages import SyncStep2, Update
from realtime.push import send_doc_update
from tests.builders import typed
from tests.integration.realtime.rooms import (
    empty,
    folded_text,
    rows_of,
    shared_document,
    stored,
    update_that_types,
)
from tests.integration.realtime.sockets import Socket

pytestmark = [pytest.mark.django_db(transaction=True)]


def updates_in(frames: list[bytes]) -> list[bytes]:
    messages = [message for frame in frames for message in decode_frame(frame)]
    return [message.update for message in messages if isinstance(message, Update | SyncStep2)]


async def test_a_client_that_sends_all_it_has_again_adds_only_what_is_new(no_watch: None, hub: Hub) -> None:
    document, people = await shared_document(ada=Role.OWNER, bob=Role.EDITOR)
    async with Socket(document.name, user=people["ada"]) as ada, Socket(document.name, user=people["bob"]) as bob:
        await ada.until_synced()
        await bob.until_synced()
        editor: Doc[Any] = Doc(client_id=5)
        text = editor.get("text", type=Text)
        text.insert(0, "abcd")
        del text[3:]
        ada.send(encode_update(editor.get_update()))
        await bob.until(lambda: bob.text == "abc")
        before = len(bob.received)
        text.insert(3, "!")
        ada.send(encode_update(editor.get_update()))
        await bob.until(lambda: bob.text == "abc!")
        shown = updates_in(bob.received[before:])
    rows = [payload for _, _, payload in await rows_of(document)]
    assert len(rows) == 2
    for told in (rows[1], *shown):
        update = decode_update(told)
        assert [(struct.client, struct.clock, struct.length) for struct in update.structs] == [(5, 4, 1)]
        assert not update.deletes


def structs_in(update: bytes) -> int:
    return len(decode_update(update).structs)


async def test_what_goes_on_in_many_structs_is_one_before_pycrdt_sees_it(
    no_watch: None, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    applied: list[bytes] = []

    def noted(doc: Doc[Any], update: bytes) -> bytes | None:
        applied.append(update)
        return emitted_by(doc, update)

    monkeypatch.setattr("history.gate.emitted_by", noted)
    document, people = await shared_document(ada=Role.OWNER)
    async with Socket(document.name, user=people["ada"]) as ada:
        await ada.until_synced()
        hostile = merge_updates(*typed("a" * 1000, client_id=9))
        assert structs_in(hostile) == 1000
        ada.send(encode_update(hostile))
        await stored(hub, document, 1)
    assert max(structs_in(update) for update in applied) == 1
    assert await folded_text(document) == "a" * 1000


async def test_rows_that_another_process_told_of_are_followed_as_few_structs(
    no_watch: None, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    document, people = await shared_document(ada=Role.OWNER)
    first, *later = typed("a" * 1000, client_id=9)
    async with Socket(document.name, user=people["ada"]) as ada:
        await ada.until_synced()
        ada.send(encode_update(first))
        await stored(hub, document, 1)
        gate = hub.rooms[document.pk].judge._gate
        assert gate is not None
        applied: list[bytes] = []

        def noted(doc: Doc[Any], update: bytes) -> bytes | None:
            applied.append(update)
            return emitted_by(doc, update)

        monkeypatch.setattr("history.gate.emitted_by", noted)
        gate.follow(2, merge_updates(*later), known=False)
    assert [structs_in(update) for update in applied] == [1]


def gate_of_an_emoji() -> tuple[Gate, WriteSession]:
    session = WriteSession(document_id=1, user=None, via=Via.API, opened_at=timezone.now(), requires_role=False)
    gate = Gate(Doc(skip_gc=True), Guard(), owners={}, epoch=1, seq=0, base=Base(1, 0), state_bytes=0, measured_bytes=0)
    gate.take(update_that_types("a\U0001f600", client_id=1), session)
    return gate, session


BETWEEN_THE_HALVES = b"\x01\x01\x02\x00\xc4\x01\x01\x01\x02\x01x\x00"
SPLIT = frozenset({(1, 2)})


def test_a_large_document_is_not_even_encoded_to_find_that_reading_it_anew_takes_long() -> None:
    large, session = gate_of_an_emoji()
    large.state_bytes = 100_000  # says it, and is not: who encodes it finds it small
    with pytest.raises(TakesLong):
        large.take(BETWEEN_THE_HALVES, session, reads_bytes_max=99_999)
    assert large.take(BETWEEN_THE_HALVES, session, reads_bytes_max=100_000) is not None


def test_a_character_that_the_log_has_as_split_is_not_split_again() -> None:
    gate, session = gate_of_an_emoji()
    gate.follow(2, EMPTY_UPDATE, known=False, splits=SPLIT)
    taken = gate.take(BETWEEN_THE_HALVES, session)
    assert taken is not None
    assert taken.splits == NO_SPLITS


def test_a_document_that_reads_a_character_as_split_is_not_read_anew_for_another_ones_split() -> None:
    gate, session = gate_of_an_emoji()
    taken = gate.take(BETWEEN_THE_HALVES, session)
    assert taken is not None and taken.splits == SPLIT
    intake = gate.intake
    gate.follow(2, EMPTY_UPDATE, known=False, splits=SPLIT)
    assert gate.intake is intake


def nested_types(depth: int) -> bytes:
    """An update of client 1 with that many arrays inside each other."""
    inner = b"".join(b"\x07\x00\x01" + var_uint(clock) + b"\x00" for clock in range(depth - 1))
    return b"\x01" + var_uint(depth) + b"\x01\x00" + b"\x07\x01\x01r\x00" + inner + b"\x00"


def nested_values(depth: int) -> bytes:
    """An update of client 1 with one value in the root `r`: that many lists inside each other."""
    return b"\x01\x01\x01\x00\x08\x01" + var_string("r") + b"\x01" + b"\x75\x01" * depth + b"\x7e\x00"


@pytest.mark.parametrize(
    "hostile",
    [
        pytest.param(nested_types(TYPE_DEPTH_MAX + 1), id="types one too deep"),
        pytest.param(nested_values(65), id="values one too deep"),
        pytest.param(nested_types(40_000), id="types that kill the process"),
        pytest.param(nested_values(26_700), id="values that kill the process"),
    ],
)
async def test_a_servers_own_write_passes_the_guard(no_watch: None, hub: Hub, hostile: bytes) -> None:
    document, _ = await shared_document()
    room = await hub.open(document.pk, empty)
    with pytest.raises(UpdateRefused, match="nested"):
        await send_doc_update(document.name, hostile)
    assert (await rows_of(document), room.seq) == ([], 0)
    await send_doc_update(document.name, update_that_types("honest", client_id=9))
    await stored(hub, document, 1)
    assert str(room.doc.get("text", type=Text)) == await folded_text(document) == "honest"


async def test_the_gate_is_built_when_somebody_first_writes_and_not_on_opening(no_watch: None, hub: Hub) -> None:
    document, people = await shared_document(ada=Role.OWNER)
    async with Socket(document.name, user=people["ada"]) as ada, Socket(document.name, user=people["ada"]) as other:
        await ada.until_synced()  # and has answered the server's question with all that it has
        ada.show(ada.doc.client_id, 1, "{}")
        await other.until(lambda: ada.doc.client_id in other.shown)
        assert not hub.rooms[document.pk].judge.has_gate
        ada.type("a")
        await stored(hub, document, 1)
        assert hub.rooms[document.pk].judge.has_gate


class Panic(BaseException):
    """What pyo3 makes of a panic in yrs is no Exception either."""


async def test_a_gate_whose_document_a_small_update_broke_is_not_used_again(
    no_watch: None, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def panic(doc: Doc[Any], update: bytes) -> bytes | None:
        raise Panic

    document, people = await shared_document(ada=Role.OWNER)
    async with Socket(document.name, user=people["ada"]) as ada:
        await ada.until_synced()
        ada.type("a")
        await stored(hub, document, 1)
        with monkeypatch.context() as patch:
            patch.setattr("history.gate.emitted_by", panic)
            ada.type("b")
            await ada.until(lambda: ada.closed == 1008)
        assert not hub.rooms[document.pk].judge.has_gate
    async with Socket(document.name, user=people["ada"]) as again:
        await again.until_synced()
        again.type("c")
        await stored(hub, document, 2)
    assert await folded_text(document) == "ca"
