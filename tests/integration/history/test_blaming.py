"""Who wrote what: the same cold and warm, before and after squash, at every seq, and never from another log."""

from collections.abc import Iterator
from typing import Any

import pytest
from pycrdt import Doc, Text
from pytest_django import Settings

from documents.models import Document
from history import blaming
from history.append import append, raise_epoch
from history.blaming import ENTRIES_PER_DOCUMENT, Blamed, blame_of
from history.crdt.lib0 import Malformed
from history.errors import NoSuchSeq
from history.fates import PendingUpdate
from history.log import head_of, read_log
from history.models import Head, Session, Update
from history.squash import squash_document
from tests.builders import (
    NEVER_WARM,
    append_history,
    append_rows,
    log_of,
    make_document,
    make_session,
    make_user,
    rechain,
    seconds_apart,
    typed,
)
from tests.histories import random_history, updates_of
from tests.integration.history.test_splits import BETWEEN
from tests.unit.crdt.test_splits import text_update

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _cold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blaming, "_warm", blaming._Warm())


def told(blamed: Blamed) -> list[tuple[Any, ...]]:
    """Text runs as (text, author, seq, deleted by whom)."""
    lines = []
    for nodes in blamed.content.values():
        for node in nodes:
            for run in node.get("runs", []):
                if isinstance(run.get("insert"), str):
                    writing = blamed.writings[run["by"]]
                    deleted_by = blamed.writings[run["deleted_by"]].author.name if "deleted_by" in run else None
                    lines.append((run["insert"], writing.author.name, writing.seq, deleted_by))
    return lines


def edit_of(rows: list[bytes], start: int, *, insert: str = "", stop: int = 0, client_id: int = 2) -> list[bytes]:
    doc: Doc[Any] = Doc(client_id=client_id)
    for row in rows:
        doc.apply_update(row)
    text = doc.get("text", type=Text)
    return updates_of(doc, lambda: text.insert(start, insert) if insert else text.__delitem__(slice(start, stop)))


@pytest.fixture
def written() -> Document:
    """ada types "hello " and a minute later "world"; bob puts "cruel " between and takes "he" away."""
    document = make_document()
    ada, bob = make_session(document, make_user("ada")), make_session(document, make_user("bob"))
    rows = typed(["hello ", "world"])
    append_rows(ada, rows)
    rows += edit_of(rows, 6, insert="cruel ")
    append_rows(bob, rows[2:])
    rows += edit_of(rows, 0, stop=2)
    append_rows(bob, rows[3:])
    rechain(document, at=seconds_apart(100, 10, 10))
    return document


def test_each_character_has_its_account_and_time(written: Document) -> None:
    blamed = blame_of(written)
    assert told(blamed) == [("llo ", "ada", 1, None), ("cruel ", "bob", 3, None), ("world", "ada", 2, None)]
    rows = {row.seq: row.at for row in Update.objects.filter(document=written)}
    assert all(writing.at == rows[writing.seq] for writing in blamed.writings.values())
    assert (blamed.seq, blamed.head_seq) == (4, 4)


def test_what_was_deleted_has_who_deleted_it(written: Document) -> None:
    assert told(blame_of(written, deleted=True))[0] == ("he", "ada", 1, "bob")
    assert told(blame_of(written, deleted=True, seq=3))[0] == ("hello ", "ada", 1, None)


def test_the_past_is_told_by_what_is_warm_of_the_head(written: Document) -> None:
    blame_of(written)
    assert told(blame_of(written, seq=2)) == [("hello ", "ada", 1, None), ("world", "ada", 2, None)]
    assert blame_of(written, seq=0).content == {}
    with pytest.raises(NoSuchSeq):
        blame_of(written, seq=5)


def test_what_comes_later_is_read_on_from_where_it_was_warm(written: Document, monkeypatch: pytest.MonkeyPatch) -> None:
    blame_of(written)
    rows = [payload for *_, payload in log_of(written)]
    append_rows(make_session(written, make_user("cy")), edit_of(rows, 0, insert="!", client_id=3))
    asked: list[int] = []

    def reading(document_id: int, *, after: int, until: int) -> Iterator[Any]:
        asked.append(after)
        return read_log(document_id, after=after, until=until)

    monkeypatch.setattr(blaming, "read_log", reading)
    with pytest.raises(NoSuchSeq):
        blame_of(written, seq=6)
    assert told(blame_of(written))[0] == ("!", "cy", 5, None)
    assert asked == [4]


def test_rows_of_one_session_within_a_stretch_are_told_as_one(written: Document, settings: Settings) -> None:
    rechain(written, at=seconds_apart(59, 10, 10))
    assert [line[:3] for line in told(blame_of(written))] == [
        ("llo ", "ada", 1),
        ("cruel ", "bob", 3),
        ("world", "ada", 1),
    ]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("deleted", [False, True])
def test_squash_and_cold_change_nothing(seed: int, deleted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    document = make_document()
    append_history(document, random_history(seed, edits=40, skip_gc=True))
    head = head_of(document.pk).seq
    before = [blame_of(document, seq=seq, deleted=deleted) for seq in (head // 2, head)]
    squash_document(document.pk, older_than=NEVER_WARM)
    assert [blame_of(document, seq=seq, deleted=deleted) for seq in (head // 2, head)] == before
    monkeypatch.setattr(blaming, "_warm", blaming._Warm())
    assert [blame_of(document, seq=seq, deleted=deleted) for seq in (head // 2, head)] == before


@pytest.mark.parametrize("is_told", [True, False])
def test_nothing_warm_is_kept_of_a_log_that_was_set_back(written: Document, is_told: bool) -> None:
    """Told by its epoch, or grown again to as many rows."""
    blame_of(written)
    rows = [payload for *_, payload in log_of(written)]
    Update.objects.filter(document=written, seq__gt=2).delete()
    rechain(written, at=seconds_apart(100))
    Head.objects.filter(document=written).update(seq=2)
    if is_told:
        raise_epoch(written.pk, epoch=head_of(written.pk).epoch)
    eve = make_session(written, make_user("eve"))
    rows = rows[:2]
    for word in ("x", "y"):
        rows += edit_of(rows, 0, insert=word)
        append_rows(eve, rows[-1:])
    assert told(blame_of(written))[0] == ("yx", "eve", 3, None)


def test_documents_are_counted_themselves_however_little_is_in_them(settings: Settings) -> None:
    settings.PALIMPSEST = {"BLAME_ENTRIES_MAX": 10 * ENTRIES_PER_DOCUMENT}
    for _ in range(20):
        document = make_document()
        append_rows(make_session(document), typed("a"))
        blame_of(document)
    assert 5 < len(blaming._warm._of) < 10


def test_what_is_kept_warm_is_bounded(written: Document, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blaming, "ENTRIES_PER_DOCUMENT", 0)
    monkeypatch.setattr(blaming, "ENTRIES_PER_CLIENT", 0)
    settings.PALIMPSEST = {"BLAME_ENTRIES_MAX": 12}
    other = make_document()
    append_rows(make_session(other, make_user("dan")), typed(["one"]))
    first = blame_of(written)
    blame_of(other)
    warm = blaming._warm._of
    assert list(warm) == [written.pk, other.pk]
    settings.PALIMPSEST = {"BLAME_ENTRIES_MAX": 3}
    blame_of(other)
    assert list(warm) == [other.pk]
    settings.PALIMPSEST = {"BLAME_ENTRIES_MAX": 1}
    assert blame_of(written) == first
    assert list(warm) == []


def test_a_damaged_log_leaves_nothing_half_read_behind(written: Document) -> None:
    payload = Update.objects.get(document=written, seq=3).payload
    Update.objects.filter(document=written, seq=3).update(payload=b"\xff")
    with pytest.raises(Malformed):
        blame_of(written)
    assert [each.size for each in blaming._warm._of.values()] == [ENTRIES_PER_DOCUMENT]
    Update.objects.filter(document=written, seq=3).update(payload=payload)
    assert len(told(blame_of(written))) == 3


def test_an_emoji_that_was_cut_keeps_its_author() -> None:
    document = make_document()
    ada, bob = make_session(document, make_user("ada")), make_session(document, make_user("bob"))
    append_rows(ada, [text_update("a😀b")])
    append([PendingUpdate(session=bob, payload=BETWEEN, splits=frozenset({(1, 2)}))])
    assert [line[:2] for line in told(blame_of(document))] == [("a\ufffd", "ada"), ("x", "bob"), ("\ufffdb", "ada")]


def test_a_session_that_left_no_row_is_nobody(written: Document) -> None:
    Session.objects.filter(document=written)._raw_delete("default")
    assert {line[1] for line in told(blame_of(written))} == {"no account"}
    assert {writing.via for writing in blame_of(written).writings.values()} == {None}
