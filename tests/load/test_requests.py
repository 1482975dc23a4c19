"""Plain requests in numbers leave nothing behind."""

from tests.clients.stack import Stack, until

REQUESTS = 60


async def test_a_request_leaves_no_connection_to_the_database_behind(hasty_stack: Stack) -> None:
    await hasty_stack.get("/healthz")
    before = connections_of(hasty_stack)
    for _ in range(REQUESTS):
        await hasty_stack.get("/healthz")
    await until("all are closed", lambda: connections_of(hasty_stack) <= before)


def connections_of(stack: Stack) -> int:
    with stack.database.connect() as looking:
        found = looking.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        ).fetchone()
    assert found is not None
    return int(found[0])
