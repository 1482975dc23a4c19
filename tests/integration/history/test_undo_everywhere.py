"""What one account did since a moment, undone in all documents: rights, names of acts, kills in between."""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone
from pycrdt import Text

from documents.models import Document, Role
from history import tasks, undo_everywhere, undoing
from history.append import append
from history.errors import LogUnavailable
from history.folds import document_at
from history.models import Head, Kind, Session, Update
from history.undo_everywhere import AccountUndo, carry_out, preview, progress_of
from tests.builders import append_rows, make_document, make_session, make_user, rechain, typed

pytestmark = pytest.mark.django_db

BEGAN = datetime.fromisoformat("2026-01-01T14:00:00+00:00")


class Office:
    """Documents in which a vandal wrote behind an owner: before 14:00 and after."""

    def __init__(self) -> None:
        self.owner, self.vandal, self.boss = (
            make_user("owner"),
            make_user("vandal"),
            make_user("boss", is_superuser=True),
        )
        self.documents = [self._document(number) for number in range(3)]

    def _document(self, number: int) -> Document:
        # Of the last one somebody else is the owner.
        members = {"owner": (self.owner, Role.OWNER if number < 2 else Role.EDITOR)}
        document = make_document(f"document {number}", **members)
        mine, bad = typed("fine"), typed(["early ", "BAD ", "WORSE "], client_id=2)
        append_rows(make_session(document, self.owner), mine)
        append_rows(make_session(document, self.vandal), bad)
        rechain(document, at=lambda seq: BEGAN + timedelta(minutes=seq - 6))
        return document

    def wanted(self, *, actor: Any = None, key: str = "k") -> AccountUndo:
        return AccountUndo(user_key=self.vandal.pk, since=BEGAN, until=timezone.now(), actor=actor, request_key=key)

    def texts(self) -> list[str]:
        return [str(document_at(each.pk).doc.get("text", type=Text)) for each in self.documents]


@pytest.fixture
def office() -> Office:
    return Office()


UNTOUCHED = "fineearly BAD WORSE "


def test_a_preview_counts_and_writes_nothing(office: Office) -> None:
    lines = list(preview(office.wanted()))
    assert [(line.document, line.updates, line.deleted, line.inserted) for line in lines] == [
        (document, 2, 10, 0) for document in office.documents
    ]
    assert set(Head.objects.values_list("seq", flat=True)) == {7}


def test_everything_since_then_is_undone_once_in_each_document(office: Office) -> None:
    lines = list(carry_out(office.wanted()))
    assert [line.seq for line in lines] == [8, 8, 8]
    assert office.texts() == ["fineearly "] * 3
    assert set(Update.objects.filter(seq=8).values_list("kind", flat=True)) == {Kind.UNDO}
    assert [line.seq for line in carry_out(office.wanted())] == [8, 8, 8]
    assert [line.seq for line in carry_out(office.wanted(key="another name"))] == [None] * 3
    assert set(Head.objects.values_list("seq", flat=True)) == {8}


def test_who_undoes_must_own_each_document(office: Office) -> None:
    lines = list(carry_out(office.wanted(actor=office.owner)))
    assert [(line.seq, bool(line.problem)) for line in lines] == [(8, False), (8, False), (None, True)]
    assert office.texts() == ["fineearly "] * 2 + [UNTOUCHED]
    assert [bool(line.problem) for line in preview(office.wanted(actor=office.owner))] == [False, False, True]
    assert [line.seq for line in carry_out(office.wanted(actor=office.boss))] == [None, None, 8]
    session = Session.objects.get(document=office.documents[2], user=office.boss)
    assert session.detail["undone"]["user"] == str(office.vandal.pk)


def test_deleted_documents_and_those_of_nobody_asked_for_are_left_alone(office: Office) -> None:
    untouched = make_document()
    append_rows(make_session(untouched, office.owner), typed("x"))
    Document.objects.filter(pk=office.documents[0].pk).update(deleted_at=timezone.now())
    assert [line.document for line in carry_out(office.wanted())] == office.documents[1:]


def test_what_is_cut_off_goes_on_where_it_was(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    done = carry_out(office.wanted())
    next(done)
    assert progress_of(office.wanted()) == undo_everywhere.Progress(documents=3, undone=1)
    assert office.texts() == ["fineearly ", UNTOUCHED, UNTOUCHED]
    list(carry_out(office.wanted()))
    assert progress_of(office.wanted()) == undo_everywhere.Progress(documents=3, undone=3)
    assert set(Head.objects.values_list("seq", flat=True)) == {8}


def test_one_document_with_a_hole_does_not_stop_the_others(office: Office) -> None:
    Update.objects.filter(document=office.documents[1], seq=6).delete()
    lines = list(carry_out(office.wanted()))
    assert [(line.seq, bool(line.problem)) for line in lines] == [(8, False), (None, True), (8, False)]
    assert [bool(line.problem) for line in preview(office.wanted(key="again"))] == [False, True, False]


@pytest.mark.parametrize("act", [carry_out, preview])
def test_a_document_that_is_erased_meanwhile_does_not_stop_the_others(
    office: Office, act: Callable[[AccountUndo], Iterator[undo_everywhere.Line]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def erased_behind_it(document_id: int, until: datetime) -> int:
        last_seq = undoing.last_seq_until(document_id, until)
        if document_id == gone:
            Document.objects.filter(pk=gone).delete()
        return last_seq

    gone = office.documents[1].pk
    monkeypatch.setattr(undo_everywhere, "last_seq_until", erased_behind_it)
    assert [line.problem for line in act(office.wanted())] == ["", "it is gone", ""]


def test_a_session_that_a_wrong_clock_opened_in_the_future_is_undone_too(office: Office) -> None:
    """Rows have the database's time, sessions that of the process that opened them."""
    Session.objects.update(opened_at=timezone.now() + timedelta(hours=1))
    assert [line.seq for line in carry_out(office.wanted())] == [8, 8, 8]


def test_a_log_that_is_away_is_not_passed_over(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise LogUnavailable

    monkeypatch.setattr("history.writes.append", away)
    with pytest.raises(LogUnavailable):
        list(carry_out(office.wanted()))


def run_task(office: Office, **options: Any) -> int:
    arguments = [str(office.vandal.pk), BEGAN.isoformat(), timezone.now().isoformat()]
    done: int = tasks.undo_everywhere.apply(args=arguments, kwargs={"request_key": "k", **options}).get()
    return done


def test_the_task_undoes_it_and_run_again_does_nothing(office: Office) -> None:
    assert run_task(office, actor_pk=str(office.boss.pk)) == 3
    assert run_task(office, actor_pk=str(office.boss.pk)) == 3
    assert set(Head.objects.values_list("seq", flat=True)) == {8}


def test_a_run_that_finds_the_log_away_is_tried_again(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def away_at_first(*asked: Any, **options: Any) -> Any:
        tried.append(1)
        if len(tried) == 1:
            raise LogUnavailable
        return append(*asked, **options)

    monkeypatch.setattr("history.writes.append", away_at_first)
    assert run_task(office, actor_pk=str(office.boss.pk)) == 3
    assert len(tried) == 4


def test_a_run_hands_on_what_it_has_no_time_for(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    queued: list[dict[str, Any]] = []
    monkeypatch.setattr(tasks, "UNDO_SECONDS", -1.0)
    monkeypatch.setattr(tasks.undo_everywhere, "apply_async", lambda *, args, kwargs: queued.append(kwargs))
    assert run_task(office) == 1
    assert queued == [{"request_key": "k", "actor_pk": None, "after": office.documents[0].pk}]
    assert run_task(office, after=office.documents[0].pk) == 1
    assert office.texts() == ["fineearly ", "fineearly ", UNTOUCHED]


def test_the_command_previews_first_and_carries_out_when_told_to(office: Office, capsys: Any) -> None:
    call_command("undo_account", "vandal", "--since", BEGAN.isoformat())
    said = capsys.readouterr().out
    assert "document 0" in said
    assert "3 documents, 6 updates, 30 characters go, 0 come back; 0 documents are left alone." in said
    assert office.texts() == [UNTOUCHED] * 3

    options = ["vandal", "--since", BEGAN.isoformat(), "--actor", "owner", "--request-key", "k"]
    call_command("undo_account", *options, "--carry-out")
    assert "undone in 2 documents; 1 are left alone" in capsys.readouterr().out
    call_command("undo_account", *options, "--progress")
    assert "undone in 2 of 3 documents" in capsys.readouterr().out


def test_the_command_queues_the_task_under_the_name_it_says(
    office: Office, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    queued: list[Any] = []
    monkeypatch.setattr(tasks.undo_everywhere, "delay", lambda *args, **kwargs: queued.append((args, kwargs)))
    call_command("undo_account", "vandal", "--since", BEGAN.isoformat(), "--request-key", "k", "--queue")
    assert "queued as k" in capsys.readouterr().out
    ((args, kwargs),) = queued
    assert (args[0], kwargs) == (str(office.vandal.pk), {"actor_pk": None, "request_key": "k"})


@pytest.mark.parametrize(
    "options",
    [
        ["nobody", "--since", BEGAN.isoformat()],
        ["vandal", "--since", "yesterday"],
        ["vandal", "--since", "2026-01-01T14:00:00"],
        ["vandal", "--since", "2026-13-01T14:00:00Z"],
        ["vandal", "--since", BEGAN.isoformat(), "--actor", "nobody"],
    ],
)
def test_the_command_says_what_it_does_not_understand(office: Office, options: list[str]) -> None:
    with pytest.raises(CommandError):
        call_command("undo_account", *options)


def test_a_name_is_no_longer_than_the_log_keeps(office: Office) -> None:
    with pytest.raises(ValueError, match="request_key"):
        office.wanted(key="x" * 151)
