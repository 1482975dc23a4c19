"""Clients without a CRDT and stock Yjs editors in one paragraph, over two worker processes: all end with the same
words, and nothing that anybody inserted is lost."""

import asyncio
import os
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from history.models import Kind, Via
from tests.clients.driver import Client, NodeClients
from tests.clients.json_rooms import JsonClient, cut, replacing
from tests.clients.people import a_cast
from tests.clients.stack import Database, Stack, a_room, assert_log_holds, until

EXAMPLES = int(os.environ.get("JSON_ROOM_EXAMPLES", "8"))
"""JSON_ROOM_EXAMPLES=1000 is the long form."""
STEPS = 25

KILLS = int(os.environ.get("JSON_ROOM_KILLS", "2"))
"""JSON_ROOM_KILLS=100 is the long form."""

LEASE_SECONDS = os.environ.get("JSON_ROOM_LEASE_SECONDS", "2")

EDITS_UNDER_WAY = 20

MARK_FIRST, WIDE_MARK_FIRST = 0x4E00, 0x1F300
"""Each insertion holds a character of its own; every third is one of two UTF-16 units."""
PLACES = st.floats(0, 1)


async def test_a_json_client_and_a_yjs_editor_type_at_once_into_one_paragraph(
    open_stack: Stack, node: NodeClients
) -> None:
    room = a_room("one paragraph/of both")
    editor = await open_stack.join(node, "editor", room, on=0)
    async with JsonClient(open_stack, room, field="t") as plain:
        await editor.type("The quick fox 😀")
        await plain.until(lambda: plain.text == "The quick fox 😀")
        base = plain.seq
        typing = asyncio.create_task(editor.type(" jumps over the lazy dog", interval_ms=5))
        for number, letter in enumerate("very "):
            # Each on what it saw last, while the editor types on.
            await plain.edit(base=plain.seq, delta=[{"retain": 4 + number}, {"insert": letter}])
        await plain.edit(base=base, content="The quick brown fox 😀")
        await typing
        await plain.until(lambda: plain.text.endswith("lazy dog") and "brown" in plain.text)
        assert plain.text == "The very quick brown fox 😀 jumps over the lazy dog"
        await editor.wait_seen(plain.text)
        assert not plain.errors
    await assert_log_holds(open_stack, node, room, editor)
    kinds = {(row.via, row.kind) for row in open_stack.database.rows(room)}
    assert kinds == {(Via.JSON, Kind.EDIT), (Via.WEBSOCKET, Kind.SYNC)}


async def test_each_edit_bears_its_author_in_the_log_and_to_the_others(members_stack: Stack, node: NodeClients) -> None:
    cast = await members_stack.database.run(a_cast, a_room("authors"))
    editor = await members_stack.join(node, "editor", cast.room, headers=cast.cookies["ed"])
    async with (
        JsonClient(members_stack, cast.room, headers=cast.cookies["olga"], field="t") as olga,
        JsonClient(members_stack, cast.room, headers=cast.cookies["vic"], field="t") as vic,
    ):
        await olga.edit(base=0, delta=[{"insert": "olga "}])
        await editor.wait_seen("olga ")
        await editor.type("ed")
        await vic.until(lambda: vic.text == "olga ed")
        editors = [
            each["editor"]["user_id"] for each in vic.said if each["type"] == "document_update" and each["delta"]
        ]
        assert editors == [str(cast.user_ids["olga"]), *[str(cast.user_ids["ed"])] * (len(editors) - 1)]
        await vic.edit(base=1, delta=[{"insert": "x"}])
        assert [each["code"] for each in vic.errors] == ["not_allowed"]
    assert {row.user_id for row in members_stack.database.rows(cast.room)} == {
        cast.user_ids["olga"],
        cast.user_ids["ed"],
    }


async def test_of_killed_workers_no_ghost_is_counted_for_long_and_no_edit_is_lost_or_made_twice(
    database: Database, redis_url: str
) -> None:
    """Workers are killed again and again, with edits under way; their clients come to the other one and send again
    what was not acknowledged."""
    options: dict[str, Any] = {"DEBUG": "true", "OPEN_ROOMS": "true", "PRESENCE_LEASE_SECONDS": LEASE_SECONDS}
    with Stack(database=database, redis_url=redis_url, **options) as stack:
        room = a_room("ghosts")
        watcher, writer = JsonClient(stack, room), JsonClient(stack, room)
        marks: list[str] = []
        for number in range(KILLS):
            victim = number % 2
            await asyncio.gather(watcher.close(), writer.close())
            await watcher.open(on=1 - victim)
            crowd = [writer, *(JsonClient(stack, room) for _ in range(4))]
            for each in crowd:
                await each.open(on=victim)
            await _beating([watcher, *crowd], lambda: watcher.count == 6)
            for _ in range(EDITS_UNDER_WAY):
                marks.append(chr(MARK_FIRST + len(marks)))
                await writer.edit(waits=False, base=writer.seq, delta=[{"insert": marks[-1]}])
            stack.workers.kill(victim)
            await writer.open()
            await writer.until(lambda: not writer.waiting)
            await watcher.until(lambda: watcher.seq >= max(writer.acks.values()))
            assert sorted(watcher.text) == marks
            await writer.close()
            await _beating([watcher], lambda: watcher.count == 1)
            stack.workers.revive(victim)
        await watcher.close()


async def _beating(clients: Sequence[JsonClient], holds: Callable[[], bool]) -> None:
    """Wait, with heartbeats of these clients."""
    async with asyncio.timeout(60):
        while not holds():
            for each in clients:
                await each.say(type="presence_heartbeat")
            await asyncio.sleep(0.2)


class Paragraph(RuleBasedStateMachine):
    """Two JSON clients and two editors, one of each on either worker process. Only letters are ever deleted, so every
    mark that somebody inserted is there in the end, once."""

    runner: asyncio.Runner
    stack: Stack
    node: NodeClients
    rooms = 0

    def __init__(self) -> None:
        super().__init__()
        self.marks: list[str] = []
        self.plain: list[JsonClient] = []
        self.editors: list[Client] = []
        self.online = [True, True]

    def run(self, work: Any) -> Any:
        return self.runner.run(work)

    def words(self, letters: str) -> str:
        number = len(self.marks)
        mark = chr((WIDE_MARK_FIRST if number % 3 == 0 else MARK_FIRST) + number)
        self.marks.append(mark)
        return letters[:1] + mark + letters[1:]

    @initialize()
    def come(self) -> None:
        self.room = a_room("machine")
        self.run(self._come())

    async def _come(self) -> None:
        Paragraph.rooms += 1
        for on in (0, 1):
            self.editors.append(await self.stack.join(self.node, f"{self.room} {on}", self.room, on=on))
            self.plain.append(JsonClient(self.stack, self.room, field="t"))
            await self.plain[-1].open(on=on)

    @rule(who=st.integers(0, 1), back=st.integers(0, 5), where=PLACES, letters=st.text("abc", max_size=3))
    def a_delta_on_some_seq(self, who: int, back: int, where: float, letters: str) -> None:
        base, text = self._seen(who, back)
        start = cut(text, where)
        stop = self._end_of_letters(text, start)
        edit = {"base": base, "delta": replacing(text, start, stop, self.words(letters))}
        self.run(self.plain[who].edit(waits=back % 2 == 0, **edit))

    @rule(who=st.integers(0, 1), back=st.integers(0, 5), where=PLACES, letters=st.text("xyz", max_size=3))
    def whole_content_on_some_seq(self, who: int, back: int, where: float, letters: str) -> None:
        base, text = self._seen(who, back)
        start = cut(text, where)
        content = text[:start] + self.words(letters) + text[self._end_of_letters(text, start) :]
        self.run(self.plain[who].edit(waits=back % 2 == 0, base=base, content=content))

    @rule(who=st.integers(0, 1), where=PLACES, letters=st.text("def", max_size=3))
    def an_editor_types(self, who: int, where: float, letters: str) -> None:
        words = self.words(letters)
        self.run(self.editors[who].edit({"root": "t", "do": "type_over", "where": where, "letters": 3, "text": words}))

    @rule(who=st.integers(0, 1))
    def an_editor_goes_offline_or_comes_back(self, who: int) -> None:
        self.online[who] = not self.online[who]
        self.run(self.editors[who].connect() if self.online[who] else self.editors[who].disconnect())

    @rule(who=st.integers(0, 1), on=st.integers(0, 1))
    def a_connection_is_lost_and_what_was_not_acknowledged_is_sent_again(self, who: int, on: int) -> None:
        self.run(self._lose(self.plain[who], on))

    async def _lose(self, client: JsonClient, on: int) -> None:
        await client.drop()
        await client.open(on=on)

    @invariant()
    def nothing_was_refused(self) -> None:
        assert [each.errors for each in self.plain] == [[] for _ in self.plain]

    def teardown(self) -> None:
        if self.plain:
            self.run(self._end())

    async def _end(self) -> None:
        for editor, is_online in zip(self.editors, self.online, strict=True):
            if not is_online:
                await editor.connect()
        for client in self.plain:
            await client.until(lambda client=client: not client.waiting)  # type: ignore[misc]
        await until("all is in the log", self._all_is_logged)
        await assert_log_holds(self.stack, self.node, self.room, *self.editors)
        said = await self.editors[0].seen()
        for client in self.plain:
            await client.until(lambda client=client: client.text == said)  # type: ignore[misc]
            await client.close()
        for editor in self.editors:
            await editor.destroy()
        assert sorted(mark for mark in said if mark in self.marks) == sorted(self.marks)

    def _all_is_logged(self) -> bool:
        logged = "".join(
            str(struct.content) for row in self.stack.database.rows(self.room) for struct in row.update.structs
        )
        return all(mark in logged for mark in self.marks)

    def _seen(self, who: int, back: int) -> tuple[int, str]:
        """One of the last seqs that a client was told of, and what the field said then."""
        seqs = sorted(self.plain[who].texts)
        base = seqs[max(0, len(seqs) - 1 - back)]
        return base, self.plain[who].texts[base]

    @staticmethod
    def _end_of_letters(text: str, start: int) -> int:
        """The end of at most three letters that stand at a place."""
        stop = start
        while stop < min(len(text), start + 3) and text[stop].isascii():
            stop += 1
        return stop


@pytest.fixture
def database(open_stack: Stack) -> Database:
    return open_stack.database


@pytest.fixture
def redis_url(open_stack: Stack) -> str:
    return open_stack.env["REDIS_URL"]


def test_whatever_json_clients_and_editors_do_all_say_the_same_and_nothing_is_lost(open_stack: Stack) -> None:
    with asyncio.Runner() as runner:
        node = NodeClients()
        runner.run(node.__aenter__())
        try:
            machine = type("Machine", (Paragraph,), {"runner": runner, "stack": open_stack, "node": node})
            run_state_machine_as_test(
                machine,
                settings=settings(
                    max_examples=EXAMPLES,
                    stateful_step_count=STEPS,
                    deadline=None,
                    suppress_health_check=list(HealthCheck),
                    database=None,
                ),
            )
        finally:
            runner.run(node.__aexit__(None, None, None))
    assert Paragraph.rooms
