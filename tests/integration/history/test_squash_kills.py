"""SIGKILL in the middle of a squash, held there by a lock: rows or segment, never neither, never both."""

import pytest

from history.models import Run, Segment, Update
from history.proof.verify import Verdict, verify_document
from history.squash import squash_document
from tests.builders import NEVER_WARM, append_rows, log_of, make_document, make_session, typed
from tests.integration.history.waiting import kill_where_it_first_writes

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
    kill_where_it_first_writes(SQUASH, document.pk, table=table)
    assert (Segment.objects.count(), Run.objects.count(), Update.objects.count()) == (0, 0, 26)
    assert log_of(document) == before
    assert squash_document(document.pk, older_than=NEVER_WARM) > 0
    assert log_of(document) == before
    assert isinstance(verify_document(document.pk), Verdict)
