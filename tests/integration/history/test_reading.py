"""What changed between two moments, and a playback of a span, say exactly what the log folds to."""

import random
from collections.abc import Mapping
from typing import Any

import pytest
from django.db import connection
from pycrdt import Array, Doc
from pytest_django import Settings

from documents.models import Document
from history.append import append, raise_epoch
from history.crdt.changes import Changes, applied
from history.crdt.content import canonical_json, root_trees
from history.crdt.roots import RootKind, root_kinds
from history.errors import LogHole, NoSuchSeq
from history.fates import PendingUpdate
from history.folds import compact, document_at
from history.log import head_of
from history.models import Snapshot
from history.reading import difference, playback
from history.squash import squash_document
from tests.builders import (
    NEVER_WARM,
    append_history,
    append_rows,
    make_document,
    make_history,
    make_session,
    make_user,
    typed,
)
from tests.histories import random_history, updates_of
from tests.integration.history.test_splits import BETWEEN
from tests.unit.crdt.test_splits import text_update

pytestmark = pytest.mark.django_db(transaction=True)


def kinds_of(document: Document) -> dict[str, RootKind]:
    return root_kinds(document_at(document.pk, full=True).doc.get_update())


def said_at(document: Document, seq: int, kinds: Mapping[str, RootKind]) -> dict[str, Any]:
    return root_trees(document_at(document.pk, seq=seq).doc, kinds)


def assert_leads(document: Document, changes: Changes, first: int, last: int) -> None:
    kinds = kinds_of(document)
    assert canonical_json(applied(said_at(document, first, kinds), changes)) == canonical_json(
        said_at(document, last, kinds)
    ), (first, last)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rows_near", [3, 5000])
def test_a_difference_of_any_two_seqs_leads_from_one_content_to_the_other(
    seed: int, rows_near: int, settings: Settings
) -> None:
    """Through rows, snapshots and segments, and whether the later moment is folded on or opened anew."""
    settings.PALIMPSEST = {**settings.PALIMPSEST, "SNAPSHOT_ROWS": rows_near}
    document = make_history(seed, edits=40)
    head = head_of(document.pk).seq
    compact(document.pk)
    squash_document(document.pk, older_than=NEVER_WARM)
    rng = random.Random(seed)
    for _ in range(5):
        first, last = sorted(rng.sample(range(head + 1), 2))
        found = difference(document, from_seq=first, to_seq=last)
        assert (found.from_seq, found.to_seq, found.head_seq) == (first, last, head)
        assert_leads(document, found.changes, first, last)
    assert difference(document, from_seq=head, to_seq=head).changes == {}


def test_a_difference_is_told_in_words_and_numbers() -> None:
    document = make_document()
    append_rows(make_session(document), typed(["one ", "two ", "three"]))
    found = difference(document, from_seq=1, to_seq=3)
    assert found.words == "inserted 2 words: “two three”"
    assert found.counts.inserted_characters == len("two three")


def test_an_emoji_that_is_cut_in_between_is_told() -> None:
    document = make_document()
    session = make_session(document)
    append([PendingUpdate(session=session, payload=text_update("a😀b"))])
    append([PendingUpdate(session=session, payload=BETWEEN, splits=frozenset({(1, 2)}))])
    found = difference(document, from_seq=1, to_seq=head_of(document.pk).seq)
    assert_leads(document, found.changes, 1, head_of(document.pk).seq)
    assert found.words == "inserted “\ufffdx\ufffd” · deleted “😀”"


@pytest.mark.parametrize(("first", "last"), [(0, 9), (2, 1), (9, 9)])
def test_moments_that_the_log_does_not_have_are_refused(first: int, last: int) -> None:
    document = make_document()
    append_rows(make_session(document), typed(["a", "b", "c"]))
    with pytest.raises(NoSuchSeq):
        difference(document, from_seq=first, to_seq=last)
    with pytest.raises(NoSuchSeq):
        playback(document, from_seq=first, to_seq=last, steps=2)


@pytest.mark.parametrize("steps", [1, 4, 500])
def test_the_steps_of_a_playback_lead_through_the_content_at_each(steps: int) -> None:
    document = make_document()
    rows = random_history(5, edits=40, skip_gc=True)
    people = append_history(document, rows)
    head = head_of(document.pk).seq
    squash_document(document.pk, older_than=NEVER_WARM)
    Snapshot.objects.all().delete()
    place = 3
    for step in playback(document, from_seq=3, to_seq=head, steps=steps):
        assert step.from_seq == place
        assert_leads(document, step.changes, place, step.seq)
        wrote = {str(people[row.user].user) for row in rows[place : step.seq]}
        assert {author.name for author in step.authors} == wrote
        assert step.at == document_at(document.pk, seq=step.seq).at
        place = step.seq
    assert place == head


def test_a_playback_has_no_more_steps_than_the_limit_and_the_span(settings: Settings) -> None:
    document = make_document()
    append_rows(make_session(document, make_user()), typed("abcdefgh"))
    assert [step.seq for step in playback(document, from_seq=2, to_seq=5, steps=100)] == [3, 4, 5]
    assert list(playback(document, from_seq=5, to_seq=5, steps=100)) == []
    settings.PALIMPSEST = {"PLAYBACK_STEPS_MAX": 2}
    assert [step.seq for step in playback(document, from_seq=0, to_seq=8, steps=100)] == [4, 8]


def test_a_root_that_comes_and_goes_within_a_playback_is_read_as_what_it_is() -> None:
    document = make_document()
    doc: Doc[Any] = Doc(client_id=1)
    items = doc.get("items", type=Array)
    rows = [*updates_of(doc, lambda: items.extend([1, 2])), *updates_of(doc, items.clear)]
    append_rows(make_session(document), rows)
    words = [step.words for step in playback(document, from_seq=0, to_seq=2, steps=2)]
    assert words == ["added 2 items", "removed 2 items"]


def test_a_slow_listener_holds_no_transaction_open_and_sees_the_span_that_it_asked_for() -> None:
    document = make_document()
    session = make_session(document)
    rows = typed("abcdef")
    append_rows(session, rows[:4])
    steps = playback(document, from_seq=0, to_seq=4, steps=2)
    assert next(steps).words == "inserted “ab”"
    assert not connection.in_atomic_block
    squash_document(document.pk, older_than=NEVER_WARM)
    append_rows(session, rows[4:])
    assert [step.words for step in steps] == ["inserted “cd”"]


def test_a_playback_of_a_log_that_was_set_back_ends() -> None:
    document = make_document()
    append_rows(make_session(document), typed("abcd"))
    steps = playback(document, from_seq=0, to_seq=4, steps=2)
    next(steps)
    raise_epoch(document.pk, epoch=head_of(document.pk).epoch)
    with pytest.raises(LogHole):
        next(steps)
