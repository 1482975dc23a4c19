"""A push whose database goes away, and then its broker, before it can be put back: it is done once both are here."""

import asyncio

from pytest_django import DjangoDbBlocker

from history.models import Via
from tests.builders import make_document
from tests.clients.stack import until
from tests.clients.test_celery_worker import LOCK_HEAD, someone_waits
from tests.faults.ground import faulty_ground
from tests.faults.line import EVERYBODY, Break
from tests.faults.pushes import Pushes

START_SECONDS = 40.0
BACK_SECONDS = 60.0
"""Above the visibility timeout of tests/faults/settings.py, and a few pauses between attempts."""


async def test_a_push_that_can_neither_be_stored_nor_put_back_is_not_lost(django_db_blocker: DjangoDbBlocker) -> None:
    with faulty_ground(django_db_blocker, seed=1) as ground:
        room = (await ground.database.run(make_document)).name
        pushes = Pushes(ground.valkey.url)
        with ground.database.connect() as holding, ground.database.connect() as looking, holding.transaction():
            holding.execute(LOCK_HEAD, [room])
            await pushes.push(room)
            await until("the task waits", lambda: someone_waits(looking), timeout_seconds=START_SECONDS)
            ground.to_valkey.break_for(EVERYBODY, Break.CUT)
            ground.to_postgres.break_for(EVERYBODY, Break.CUT)
            await until("it is given back", lambda: "exceptions.Reject" in ground.celery.log)
        await asyncio.to_thread(ground.to_postgres.mend)
        await asyncio.to_thread(ground.to_valkey.mend)

        def is_stored() -> bool:
            return [row.via for row in ground.database.rows(room)] == [Via.TASK]

        await until("it is stored", is_stored, timeout_seconds=BACK_SECONDS)
        pushes.close()
