"""The ledger finds what it is there for: structs that came first from somebody else, or by an older connection."""

from django.utils import timezone

from history.log import LogRow
from history.models import Kind
from tests.builders import typed
from tests.faults.ledger import Author, RoomLog

FIRST, SECOND = Author.of(5, "crowd 7 1"), Author.of(5, "crowd 7 2")
OTHER_PAGE, TASK = Author.of(5, "crowd 8 1"), Author.of(None, "")


def judged(*rows: tuple[Author, bytes]) -> tuple[RoomLog, list[str]]:
    """The log of a room after these rows, and what was wrong."""
    log, wrong = RoomLog("room", 1), list[str]()
    for seq, (author, update) in enumerate(rows, start=1):
        log.authors[seq] = author
        log.take(LogRow(seq, seq, Kind.SYNC, timezone.now(), update), wrong)
    return log, wrong


def test_a_connection_goes_on_where_the_last_one_of_its_client_broke() -> None:
    one, two = typed("ab", client_id=7)
    log, wrong = judged((FIRST, one), (SECOND, two))
    assert (log.writers, wrong) == ({7: {(5, 7)}}, [])


def test_what_comes_first_by_an_older_connection_is_wrong() -> None:
    one, two = typed("ab", client_id=7)
    _, wrong = judged((SECOND, one), (FIRST, two))
    assert wrong == ["room@2 is of a connection before the last of client 7"]


def test_another_page_of_the_same_user_is_somebody_else() -> None:
    one, two = typed("ab", client_id=7)
    log, _ = judged((FIRST, one), (OTHER_PAGE, two))
    assert log.writers == {7: {(5, 7), (5, 8)}}


def test_a_copy_is_nobodys_writing_and_a_row_that_can_be_left_out() -> None:
    (one,) = typed("a", client_id=7)
    log, wrong = judged((FIRST, one), (TASK, one))
    assert (log.writers, log.copied_rows, wrong) == ({7: {(5, 7)}}, {2}, [])
