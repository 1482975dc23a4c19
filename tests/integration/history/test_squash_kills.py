"""SIGKILL in the middle of a squash, held there by a lock: rows or segment, never neither, never both."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.db import connection, transaction

from history.models import Run, Segment, Update
from history.squash import squash_document
from history.verify import Verdict, verify_document
from tests.builders import NEVER_WARM, append_rows, log_of, make_document, make_session, typed
from tests.integration.history.waiting import backend_waiting_for_a_lock, database_dsn, until_gone

pytestmark = pytest.mark.django_db(transaction=True)

SQUASH = """
import sys, django
from django.conf import settings
settings.PALIMPSEST = {"SEGMENT_ROWS_MIN": 4, "SEGMENT_ROWS_MAX": 10}
django.setup()
from tests.builders import NEVER_WARM
from history.squash import squash_document
squash_document(int(sys.argv[1]), older_than=NEVER_WARM)
"""


@pytest.mark.parametrize("table", ["history_segment", "history_run", "history_update"])
def test_a_squash_that_is_killed_loses_nothing_and_is_taken_up_again(table: str) -> None:
    document = make_document()
    append_rows(make_session(document), typed("abcdefghijklmnopqrstuvwxyz"))
    before = log_of(document)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"LOCK TABLE {table} IN EXCLUSIVE MODE")  # reads pass, the squash's next write does not
        with subprocess.Popen(
            [sys.executable, "-c", SQUASH, str(document.pk)],
            env={**os.environ, "DATABASE_URL": database_dsn(), "DJANGO_SETTINGS_MODULE": "config.settings"},
            cwd=Path(__file__).resolve().parents[3],
        ) as process:
            try:
                backend = backend_waiting_for_a_lock()
            finally:
                process.kill()
    until_gone(backend)
    assert (Segment.objects.count(), Run.objects.count(), Update.objects.count()) == (0, 0, 26)
    assert log_of(document) == before
    assert squash_document(document.pk, older_than=NEVER_WARM) > 0
    assert log_of(document) == before
    assert isinstance(verify_document(document.pk), Verdict)
