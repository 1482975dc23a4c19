"""Until its COMMIT is through, nobody but its writer sees an edit: no client, no latecomer, no reader of the log."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest
from pycrdt import Text

from tests.clients.driver import Client, NodeClients
from tests.clients.stack import Database, Stack, a_room, until
from tests.conftest import Ground

WORDS = "not yet durable"
ADVISORY_LOCK = 7_201_553

Hold = Callable[[Database, str], AbstractContextManager[None]]


@contextlib.contextmanager
def head_locked(database: Database, room: str) -> Iterator[None]:
    """The append waits before it has written anything."""
    with database.connect() as connection, connection.transaction():
        query = """
            SELECT head.seq FROM history_head head JOIN documents_document document ON document.id = head.document_id
            WHERE document.name = %s FOR UPDATE OF head
        """
        connection.execute(query, [room])
        yield


@contextlib.contextmanager
def commit_stuck(database: Database, room: str) -> Iterator[None]:
    """The append has written its rows, and a deferred trigger holds back the COMMIT itself."""
    with database.connect() as connection:
        connection.execute(f"""
            CREATE FUNCTION hold_commit() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN PERFORM pg_advisory_xact_lock({ADVISORY_LOCK}); RETURN NULL; END $$
        """)
        connection.execute("""
            CREATE CONSTRAINT TRIGGER hold_commit AFTER INSERT ON history_update DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION hold_commit()
        """)
        try:
            with connection.transaction():
                connection.execute("SELECT pg_advisory_xact_lock(%s)", [ADVISORY_LOCK])
                yield
        finally:
            connection.execute("DROP FUNCTION hold_commit CASCADE")


def an_append_waits(database: Database) -> bool:
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with database.connect() as connection:
        (waiting,) = connection.execute(query).fetchone() or (0,)
    return bool(waiting)


async def assert_unseen_until_committed(stack: Stack, node: NodeClients, hold: Hold) -> None:
    """The scenario: one types while the COMMIT is held, everybody else looks; then it is let through."""
    room = a_room("held")
    ann = await stack.join(node, "ann", room, on=0)
    near = await stack.join(node, "near", room, on=0)
    far = await stack.join(node, "far", room, on=1)
    await ann.type("before ")
    await near.watch("before ")
    await far.watch("before ")

    with hold(stack.database, room):
        await ann.edit({"root": "t", "do": "append", "text": WORDS})
        await until("the append waits", lambda: an_append_waits(stack.database))
        await presence_has_overtaken(ann, near, far)
        late = [await stack.join(node, f"late on {on}", room, on=on) for on in (0, 1)]
        for client in (near, far, *late):
            assert WORDS not in await client.seen(), f"{client.name} saw an edit before its COMMIT"
        for place, body in (await readings(stack, room)).items():
            assert "before" in body, f"{place} reads nothing"
            assert WORDS not in body, f"{place} shows an edit before its COMMIT"

    for client in (near, far, *late):
        await client.watch(f"before {WORDS}")
    for place, body in (await readings(stack, room)).items():
        assert WORDS in body, f"{place} does not show a committed edit"


async def readings(stack: Stack, room: str) -> dict[str, str]:
    """The document as the API, the history page and a fold by a process of its own read it."""
    key = (await stack.database.document(room)).key
    folded = await stack.database.folded(room)
    return {
        "the API": await stack.get(f"/api/v1/documents/{key}/content"),
        "the history page": await stack.get(f"/d/{key}/history/"),
        "a fold of the log": str(folded.get("t", type=Text)),
    }


async def presence_has_overtaken(writer: Client, *others: Client) -> None:
    """What the writer sends after the edit has come through the same sockets and the same channel layer."""
    mark = {"after": "the edit"}
    await writer.set_awareness(mark)
    for client in others:
        await client.wait_awareness(writer.client_id, state=mark)


@pytest.mark.parametrize("hold", [head_locked, commit_stuck])
async def test_nobody_sees_an_edit_while_its_commit_is_held_back(
    open_stack: Stack, node: NodeClients, hold: Hold
) -> None:
    await assert_unseen_until_committed(open_stack, node, hold)


async def test_showing_an_edit_before_its_commit_would_be_noticed(ground: Ground, node: NodeClients) -> None:
    unguarded = Stack(
        database=ground.database,
        redis_url=ground.redis_url,
        application="tests.clients.showing_before_commit:application",
        DEBUG="true",
        OPEN_ROOMS="true",
    )
    with unguarded as stack, pytest.raises(AssertionError, match="near saw an edit before its COMMIT"):
        await assert_unseen_until_committed(stack, node, head_locked)
