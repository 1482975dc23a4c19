"""Who opened a document, and who was refused a write, is in the audit; a database that is away holds up no socket."""

from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import OperationalError

from documents.models import Document, Role
from history.models import Action, AuditEntry, Via
from realtime.hub import Hub
from tests.integration.realtime.rooms import eventually, shared_document, update_that_types
from tests.integration.realtime.sockets import Socket

pytestmark = [pytest.mark.django_db(transaction=True)]


@sync_to_async
def audited(document: Document, action: Action) -> list[tuple[Any, int, Any]]:
    entries = AuditEntry.objects.filter(document_id=document.pk, action=action).order_by("n")
    return list(entries.values_list("user_id", "via", "detail"))


async def test_a_socket_in_its_room_is_an_opening_once_however_often_it_comes_back(hub: Hub) -> None:
    document, people = await shared_document(ada=Role.OWNER, eve=Role.VIEWER)
    for _ in range(2):
        async with Socket(document.name, user=people["ada"]) as ada, Socket(document.name, user=people["eve"]) as eve:
            await ada.until_synced()
            await eve.until_synced()
        await hub.openings.flushed()
    assert sorted(await audited(document, Action.OPENED)) == sorted(
        (people[name].pk, Via.WEBSOCKET.value, {}) for name in ("ada", "eve")
    )


async def test_a_socket_that_was_turned_away_is_no_opening(hub: Hub) -> None:
    document, _ = await shared_document(ada=Role.OWNER)
    async with Socket(document.name) as nobody:
        await nobody.until(lambda: nobody.closed is not None)
    await hub.openings.flushed()
    assert await audited(document, Action.OPENED) == []


async def test_a_readers_edit_is_in_the_audit_once_and_says_why_it_was_refused(hub: Hub) -> None:
    document, people = await shared_document(ada=Role.OWNER, eve=Role.VIEWER)
    async with Socket(document.name, user=people["eve"]) as eve:
        await eve.until_synced()
        for client_id in (7, 8):
            eve.send(b"\x00\x02" + _var_bytes(update_that_types("secret", client_id=client_id)))
        await eve.until(lambda: eve.denied == 2)
        await hub.refusals.flushed()
    assert await audited(document, Action.WRITE_REFUSED) == [
        (people["eve"].pk, Via.WEBSOCKET.value, {"reason": "not_allowed"})
    ]


async def test_openings_wait_for_a_database_that_does_not_take_them(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("realtime.openings.RETRY_SECONDS", 0.01)
    document, people = await shared_document(ada=Role.OWNER)
    record, failures = hub.openings._record, 0

    async def fail_twice(openings: Any) -> None:
        nonlocal failures
        if failures < 2:
            failures += 1
            raise OperationalError("away")
        await record(openings)

    hub.openings._record = fail_twice
    async with Socket(document.name, user=people["ada"]) as ada:
        await ada.until_synced()
        await eventually(lambda: failures == 2)
        await hub.openings.flushed()
    assert len(await audited(document, Action.OPENED)) == 1


def _var_bytes(payload: bytes) -> bytes:
    assert len(payload) < 128
    return bytes([len(payload)]) + payload
