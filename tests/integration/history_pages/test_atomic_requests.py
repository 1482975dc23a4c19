"""Under a host's ATOMIC_REQUESTS the past is read in one snapshot of the database all the same."""

from typing import Any

import pytest
from django.db import connections
from django.urls import reverse
from pytest_django import Settings

from history import log
from history.models import Segment
from history.squash import squash_document
from tests.builders import NEVER_WARM, append_rows, in_thread, make_session, typed
from tests.integration.history_pages.builders import a_shared_document, a_user, signed_in

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize(
    "door",
    [
        "document-content",
        "document-changes",
        "document-blame",
        "document-runs",
        "document-history",
        "document-history-restore",
        "admin:history_documenthistory_change",
        "admin:history_documenthistory_restore",
    ],
)
def test_a_squash_in_the_middle_of_a_read_is_not_seen(
    door: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.PALIMPSEST = {"SEGMENT_ROWS_MIN": 4, "SEGMENT_ROWS_MAX": 10}
    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)
    shared = a_shared_document()
    append_rows(make_session(shared.document), typed("abcdefghijkl"))
    read_live_rows = log._live_block

    def after_a_squash(*page: Any) -> Any:
        if not Segment.objects.filter(document=shared.document).exists():
            in_thread(lambda: squash_document(shared.document.pk, older_than=NEVER_WARM)).result(timeout=30)
        return read_live_rows(*page)

    monkeypatch.setattr(log, "_live_block", after_a_squash)
    client = signed_in(a_user("root", is_staff=True, is_superuser=True))
    at = shared.document.pk if door.startswith("admin:") else shared.document.key
    answer = client.get(reverse(door, args=[at]), {"seq": 5} if door.endswith("restore") else {})
    assert answer.status_code == 200, answer.content
    assert Segment.objects.filter(document=shared.document).exists()
