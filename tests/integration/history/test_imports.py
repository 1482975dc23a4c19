"""Documents of other servers' stores come in with their content and their times, whole or not at all, and once."""

import io
import os
import random
import sqlite3
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection
from django.utils import timezone
from pycrdt import Text
from pytest_django import Settings

from documents.models import Document, Role
from documents.roles import role_for
from history.crdt.state_vectors import decode_state_vector
from history.folds import document_at, make_ydoc
from history.imports import foreign
from history.imports.beginnings import Wanted
from history.imports.foreign import import_foreign
from history.imports.sources import SourceDocument, SourceRow
from history.models import Kind, Session, Split, Update, Via
from history.proof.verify import Verdict, verify_document
from history.squash import squash_document
from history.versions import name_version
from tests.builders import NEVER_WARM, admitted_session, append_rows, in_thread, log_of, make_document, make_user, typed
from tests.emoji_histories import emoji_histories, said_by
from tests.foreign_stores import (
    BEGIN,
    file_of_version_1,
    record_of_version_2,
    times,
    write_file,
    write_hocuspocus,
    write_sqlite,
    write_sqlite_1,
)
from tests.histories import random_history, replay
from tests.integration.history.waiting import database_dsn, kill_where_it_first_writes

pytestmark = pytest.mark.django_db

WORDS = "abcdefghijklmnop"


@pytest.fixture(autouse=True)
def owner() -> Any:
    return make_user("olga")


def run(format_: str, source: Path | str, *options: str) -> str:
    """What the command says; it raises CommandError where it ends with another code than 0."""
    out = io.StringIO()
    try:
        call_command("import_documents", format_, str(source), "--owner", "olga", *options, stdout=out)
    except CommandError as error:
        error.args = (f"{error}\n{out.getvalue()}",)
        raise
    return out.getvalue()


def text_of(name: str) -> str:
    return str(make_ydoc(Document.objects.get(name=name).pk).doc.get("text", type=Text))


def times_of(name: str) -> list[datetime]:
    return [row[3] for row in log_of(Document.objects.get(name=name))]


def moments(count: int) -> list[datetime]:
    return [datetime.fromtimestamp(at, UTC) for at in times(count)]


def assert_holds(name: str) -> None:
    outcome = verify_document(Document.objects.get(name=name).pk)
    assert isinstance(outcome, Verdict), outcome


WRITERS: dict[str, Callable[[Path, list[bytes]], Path]] = {}


def writer(function: Callable[[Path, list[bytes]], Path]) -> Callable[[Path, list[bytes]], Path]:
    WRITERS[function.__name__] = function
    return function


@writer
def sqlite_store(folder: Path, updates: list[bytes]) -> Path:
    write_sqlite(folder / "ystore.db", {"minutes": updates, "other": typed("other")})
    return folder / "ystore.db"


@writer
def sqlite_store_with_checkpoints(folder: Path, updates: list[bytes]) -> Path:
    write_sqlite(folder / "ystore.db", {"minutes": updates}, checkpoint_interval=3)
    return folder / "ystore.db"


@writer
def sqlite_store_of_the_first_version(folder: Path, updates: list[bytes]) -> Path:
    write_sqlite_1(folder / "ystore.db", {"minutes": updates})
    return folder / "ystore.db"


@writer
def file_store(folder: Path, updates: list[bytes]) -> Path:
    write_file(folder / "store" / "minutes.y", updates)
    return folder / "store"


@writer
def file_store_without_a_suffix(folder: Path, updates: list[bytes]) -> Path:
    write_file(folder / "store" / "minutes", updates)
    (folder / "store" / "other").write_text("no store")
    return folder / "store"


@pytest.mark.parametrize("kind", WRITERS)
def test_a_pycrdt_store_comes_in_update_by_update_at_its_times(kind: str, tmp_path: Path) -> None:
    said = run("pycrdt", WRITERS[kind](tmp_path, typed(WORDS)))
    between = " rows in the log of 2023-04-05 06:07 to 2023-04-05 06:07 UTC"
    assert f"minutes: imported, 16{between}" in said
    assert f"{between}, 0 bad rows, " in said.splitlines()[-1]
    assert text_of("minutes") == WORDS
    assert times_of("minutes") == moments(16)
    document = Document.objects.get(name="minutes")
    assert {row[2] for row in log_of(document)} == {Kind.IMPORT}
    session = Session.objects.get(document=document)
    assert (session.via, session.user, session.detail["document"]) == (Via.IMPORT, None, "minutes")
    assert str(tmp_path) not in str(session.detail)
    assert (role_for(make_user(), document), role_for(document.created_by, document)) == (None, Role.OWNER)
    assert_holds("minutes")


@pytest.mark.parametrize("seed", range(4))
def test_a_random_history_is_the_same_at_each_of_its_moments(seed: int, tmp_path: Path) -> None:
    rows = random_history(seed, edits=25, skip_gc=True)
    write_sqlite(tmp_path / "ystore.db", {"minutes": [row.update for row in rows]})
    run("pycrdt", tmp_path / "ystore.db")
    document = Document.objects.get(name="minutes")
    assert squash_document(document.pk, older_than=NEVER_WARM) > 0
    for count in range(1, len(rows) + 1, 7):
        at = datetime.fromtimestamp(times(len(rows))[count - 1], UTC)
        there, expected = document_at(document.pk, at=at, full=True).doc, replay(rows[:count], skip_gc=True)
        assert decode_state_vector(there.get_state()) == decode_state_vector(expected.get_state())
        assert there.get_update() == expected.get_update()
    assert_holds("minutes")


def test_the_files_of_the_first_versions_come_in_at_the_time_of_the_file(tmp_path: Path) -> None:
    for name, metadata in (("with", True), ("without", False)):
        path = tmp_path / f"{name}.y"
        path.write_bytes(file_of_version_1(typed(WORDS), metadata=metadata))
        os.utime(path, (BEGIN.timestamp(), BEGIN.timestamp()))
    said = run("pycrdt", tmp_path)
    assert (text_of("with"), text_of("without")) == (WORDS, WORDS)
    assert times_of("with") == times_of("without") == [BEGIN] * 16
    assert "16 without a time of their own" in said


def test_a_compressed_store_says_what_it_wants_to_be_read_with(tmp_path: Path) -> None:
    write_sqlite(tmp_path / "ystore.db", {"minutes": typed(WORDS)}, compression=(zlib.compress, zlib.decompress))
    with pytest.raises(CommandError, match="--compressed zlib"):
        run("pycrdt", tmp_path / "ystore.db")
    run("pycrdt", tmp_path / "ystore.db", "--compressed", "zlib")
    assert text_of("minutes") == WORDS


def test_of_a_store_that_has_forgotten_its_beginning_the_checkpoint_is_read(tmp_path: Path) -> None:
    """pycrdt-store 0.1.5 squashes what is not compressed into nothing; its checkpoint is then all there is."""
    path = tmp_path / "ystore.db"
    write_sqlite(
        path, {"minutes": typed(WORDS)}, checkpoint_interval=5, squash_history_older_than=9, squash_no_more_often_than=1
    )
    with closing(sqlite3.connect(path)) as db:
        (left,) = db.execute("SELECT count(*) FROM yupdates").fetchone()
    assert left < 16, "nothing was squashed"
    run("pycrdt", path)
    assert text_of("minutes") == WORDS
    assert_holds("minutes")


def test_updates_that_stand_before_what_they_build_on_wait_for_it(tmp_path: Path) -> None:
    rows = random_history(3, edits=30, skip_gc=True)
    updates = [row.update for row in rows]
    random.Random(1).shuffle(updates)
    write_sqlite(tmp_path / "ystore.db", {"minutes": updates})
    run("pycrdt", tmp_path / "ystore.db")
    document = Document.objects.get(name="minutes")
    folded = document_at(document.pk, full=True).doc
    assert decode_state_vector(folded.get_state()) == decode_state_vector(replay(rows, skip_gc=True).get_state())
    at = times_of("minutes")
    assert at == sorted(at)
    assert at[-1] == moments(len(rows))[-1]
    assert_holds("minutes")


def test_times_never_fall_and_never_lie_ahead(tmp_path: Path) -> None:
    before = timezone.now()
    path = tmp_path / "minutes.y"
    later = (before + timedelta(days=9)).timestamp()
    records = [record_of_version_2(each, at) for each, at in zip(typed("abcd"), (9e8, 8e8, later, 9e8), strict=True)]
    path.write_bytes(b"VERSION:2\n" + b"".join(records))
    run("pycrdt", path)
    first, second, third, fourth = times_of("minutes")
    assert first == second == datetime.fromtimestamp(9e8, UTC)
    assert before <= third == fourth <= timezone.now()
    assert_holds("minutes")


def test_emoji_that_edits_cut_in_two_are_read_as_yjs_reads_them(tmp_path: Path) -> None:
    histories = emoji_histories(1, 8)
    for seed, rows in histories.items():
        write_file(tmp_path / f"{seed}.y", [row.update for row in rows])
    run("pycrdt", tmp_path)
    for seed, rows in histories.items():
        document = Document.objects.get(name=str(seed))
        assert said_by(make_ydoc(document.pk).doc) == rows[-1].yjs
        assert_holds(document.name)
    assert Split.objects.exists()


def test_states_are_documents_named_after_their_files(tmp_path: Path) -> None:
    (tmp_path / "team").mkdir()
    state = replay(typed(WORDS)).get_update()
    for name in ("one", "team/two", "e\u0301tude"):
        path = tmp_path / f"{name}.yjs"
        path.write_bytes(state)
        os.utime(path, (BEGIN.timestamp(), BEGIN.timestamp()))
    (tmp_path / "not one.txt").write_text("no state")
    run("yjs", tmp_path, "--prefix", "old/", "--rename", "one", "first")
    assert set(Document.objects.values_list("name", flat=True)) == {"first", "old/team/two", "old/\xe9tude"}
    assert text_of("first") == text_of("old/team/two") == WORDS
    assert times_of("first") == [BEGIN]


def test_a_hocuspocus_database_comes_in(tmp_path: Path) -> None:
    path = tmp_path / "hocuspocus.sqlite"
    write_hocuspocus(path, {"one": replay(typed(WORDS)).get_update(), "empty": b"\0\0"})
    os.utime(path, (BEGIN.timestamp(), BEGIN.timestamp()))
    run("hocuspocus", path)
    assert (text_of("one"), times_of("one"), times_of("empty")) == (WORDS, [BEGIN], [])
    assert "2 already there" in run("hocuspocus", path)


@pytest.mark.django_db(transaction=True)
def test_a_hocuspocus_table_in_postgres_comes_in_with_a_column_of_times() -> None:
    with connection.cursor() as cursor:
        cursor.execute("CREATE SCHEMA yjs CREATE TABLE documents (name text, data bytea, updated_at timestamptz)")
        state = replay(typed(WORDS)).get_update()
        cursor.execute("INSERT INTO yjs.documents VALUES ('one', %s, %s), ('two', NULL, %s)", [state, BEGIN, BEGIN])
    try:
        with pytest.raises(CommandError, match=r"one: imported(.|\n)*the row of two: there are no bytes"):
            run("hocuspocus", database_dsn(), "--table", "yjs.documents", "--time-column", "updated_at")
        assert (text_of("one"), times_of("one")) == (WORDS, [BEGIN])
        with pytest.raises(CommandError, match=r"relation .* does not exist"):
            run("hocuspocus", database_dsn(), "--table", "nowhere")
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP SCHEMA yjs CASCADE")


def test_a_database_that_is_away_is_said_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(CommandError) as raised:
        run("hocuspocus", "postgres://someone:secret@127.0.0.1:1/none")
    assert "the database cannot be read" in str(raised.value)
    assert "secret" not in str(raised.value)


def test_a_state_that_no_row_can_hold_comes_in_in_pieces(tmp_path: Path, settings: Settings) -> None:
    rows = random_history(5, edits=120, skip_gc=True)
    state = replay(rows).get_update()
    settings.PALIMPSEST = {"UPDATE_BYTES_MAX": 600, "UPDATE_STRUCTS_MAX": 40}
    (tmp_path / "large.yjs").write_bytes(state)
    run("yjs", tmp_path / "large.yjs")
    document = Document.objects.get(name="large")
    assert Update.objects.filter(document=document).count() > len(state) // 600
    folded = make_ydoc(document.pk).doc
    assert decode_state_vector(folded.get_state()) == decode_state_vector(replay([state]).get_state())
    assert_holds("large")


def test_a_few_bytes_that_become_millions_of_structs_are_a_bad_row(tmp_path: Path) -> None:
    collected = b"\x00\x01" * 1_048_576
    bomb = b"\x01\x80\x80\x40\x05\x00" + collected + b"\x00"
    write_sqlite(tmp_path / "ystore.db", {"bomb": [zlib.compress(bomb)], "good": [zlib.compress(typed("a")[0])]})
    with pytest.raises(CommandError) as raised:
        run("pycrdt", tmp_path / "ystore.db", "--compressed", "zlib")
    assert "the update holds more than 1000000 structs" in str(raised.value)
    assert [each.name for each in Document.objects.all()] == ["good"]


def test_a_view_in_a_store_is_not_asked_for_anything(tmp_path: Path) -> None:
    path = sqlite_store(tmp_path, typed(WORDS))
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("DROP TABLE IF EXISTS ycheckpoints")
        db.execute("CREATE VIEW ycheckpoints AS SELECT 'minutes' AS path, x'0102' AS checkpoint, 0 AS timestamp")
    run("pycrdt", path)
    assert text_of("minutes") == WORDS


def _bad_sqlite(folder: Path) -> Path:
    path = folder / "ystore.db"
    write_sqlite(path, {"bad": typed(WORDS), "good": typed(WORDS)})
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE yupdates SET yupdate = x'0102' WHERE rowid = 3")
        db.execute("UPDATE yupdates SET yupdate = NULL WHERE rowid = 16")
    return path


def test_rows_are_logged_while_the_others_are_still_to_be_read(monkeypatch: pytest.MonkeyPatch, owner: Any) -> None:
    monkeypatch.setattr(foreign, "BATCH_ROWS_MAX", 4)
    logged: list[int] = []

    def rows() -> Iterator[SourceRow]:
        for place, update in enumerate(typed(WORDS)):
            logged.append(Update.objects.count())
            yield SourceRow(str(place), update, BEGIN)

    source = SourceDocument(name="minutes", state="", bytes=0, at=None, detail={}, rows=rows)
    import_foreign("pycrdt-store", source, Wanted(owner=owner), lambda rows, bytes_: None)
    assert logged == [place // 4 * 4 for place in range(16)]
    assert text_of("minutes") == WORDS


def test_a_bad_row_is_told_with_its_place_and_its_document_left_out_whole(tmp_path: Path) -> None:
    with pytest.raises(CommandError) as raised:
        run("pycrdt", _bad_sqlite(tmp_path))
    said = str(raised.value)
    assert "bad: not imported: 14 rows are bad" in said
    assert "  rowid 3: " in said and "  rowid 16: there are no bytes" in said
    assert "  rowid 4: it builds on updates that the store does not have" in said
    assert "good: imported, 16 rows" in said and "1 imported, 0 already there, 1 not imported" in said
    assert "1 documents were not imported" in said
    assert [each.name for each in Document.objects.all()] == ["good"]


@pytest.mark.parametrize("format_", ["yjs", "hocuspocus"])
def test_a_state_that_cannot_be_read_is_told_with_its_place_and_the_others_come_in(
    format_: str, tmp_path: Path
) -> None:
    states = {"good": replay(typed(WORDS)).get_update(), "torn": b"\x01\x02"}
    if format_ == "yjs":
        source, place = tmp_path, "torn.yjs: "
        for name, state in states.items():
            (tmp_path / f"{name}.yjs").write_bytes(state)
    else:
        source, place = tmp_path / "hocuspocus.sqlite", "the row of torn: "
        write_hocuspocus(source, states)
    with pytest.raises(CommandError) as raised:
        run(format_, source)
    said = str(raised.value)
    assert f"\n  {place}" in said and "torn: not imported: 1 rows are bad" in said
    assert [each.name for each in Document.objects.all()] == ["good"]
    with pytest.raises(CommandError, match="torn: not imported: all of it is bad"):
        run(format_, source, "--skip-bad")
    assert [each.name for each in Document.objects.all()] == ["good"]
    assert text_of("good") == WORDS


def test_bad_rows_are_left_out_where_that_is_asked_for(tmp_path: Path) -> None:
    said = run("pycrdt", _bad_sqlite(tmp_path), "--skip-bad")
    assert "bad: imported, 2 rows in the log" in said and "14 bad ones left out" in said
    assert (text_of("bad"), text_of("good")) == (WORDS[:2], WORDS)
    assert_holds("bad")


def test_what_pycrdt_dies_of_is_a_bad_row(tmp_path: Path) -> None:
    """Values nested 30,000 deep are a segmentation fault of yrs; the guard reads them first."""
    nested = b"\x01\x01\x01\x00\x08\x01\x04text\x01" + b"\x75\x01" * 30_000 + b"\x7e\x00"
    path = tmp_path / "minutes.y"
    path.write_bytes(b"VERSION:2\n" + record_of_version_2(typed("a")[0], 9e8) + record_of_version_2(nested, 9e8))
    with pytest.raises(CommandError, match="byte "):
        run("pycrdt", path)
    run("pycrdt", path, "--skip-bad")
    assert text_of("minutes") == "a"


def test_a_second_run_does_nothing(tmp_path: Path) -> None:
    path = sqlite_store(tmp_path, typed(WORDS))
    run("pycrdt", path)
    before = log_of(Document.objects.get(name="minutes"))
    said = run("pycrdt", path)
    assert "minutes: already there" in said and "0 imported, 2 already there, 0 not imported; 0 rows" in said
    assert log_of(Document.objects.get(name="minutes")) == before
    assert Document.objects.count() == 2


@pytest.mark.django_db(transaction=True)
def test_two_imports_at_once_bring_each_document_once(tmp_path: Path) -> None:
    path = tmp_path / "ystore.db"
    write_sqlite(path, {str(number): typed(WORDS) for number in range(6)})
    both = [in_thread(lambda: run("pycrdt", path)) for _ in range(2)]
    said = "".join(each.result() for each in both)
    assert (said.count(": imported, 16 rows"), said.count(": already there")) == (6, 6)
    assert [text_of(str(number)) for number in range(6)] == [WORDS] * 6


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_sees_a_bar_and_nothing_else_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreign, "BATCH_ROWS_MAX", 10)
    write_sqlite(tmp_path / "ystore.db", {"minutes\x1b[2J": typed(WORDS)})
    for bar, is_drawn in ((Terminal(), True), (io.StringIO(), False)):
        with pytest.raises(CommandError):
            call_command(
                "import_documents", "pycrdt", str(tmp_path / "ystore.db"), "--open", "--rename", "minutes\x1b[2J",
                "chat/\x1b[2J", stdout=(out := io.StringIO()), stderr=bar,
            )  # fmt: skip
        assert "\x1b[2J" not in out.getvalue() + bar.getvalue()
        call_command(
            "import_documents", "pycrdt", str(tmp_path / "ystore.db"), "--open", "--rename", "minutes\x1b[2J",
            str(is_drawn), stdout=(out := io.StringIO()), stderr=bar,
        )  # fmt: skip
        assert "16 rows in the log" in out.getvalue()
        assert ("] 0/1 documents, 10 rows" in bar.getvalue()) is is_drawn
        assert "\x1b[2J" not in out.getvalue() + bar.getvalue()


def test_a_source_that_has_changed_since_is_not_taken_for_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "minutes.y"
    write_file(path, typed(WORDS[:4]))
    run("pycrdt", path)
    path.unlink()
    write_file(path, typed(WORDS))
    with pytest.raises(CommandError, match="the source has changed since"):
        run("pycrdt", path)
    run("pycrdt", path, "--prefix", "again/")
    assert (text_of("minutes"), text_of("again/minutes")) == (WORDS[:4], WORDS)


def test_a_name_that_another_document_has_is_said_and_the_others_go_on(tmp_path: Path) -> None:
    make_document("minutes")
    path = sqlite_store(tmp_path, typed(WORDS))
    with pytest.raises(CommandError, match=r"minutes: not imported: there is another document(.|\n)*other: imported"):
        run("pycrdt", path)
    assert "minutes-2: imported" in run("pycrdt", path, "--rename", "minutes", "minutes-2")


def test_names_that_no_room_has_are_said(tmp_path: Path) -> None:
    write_sqlite(tmp_path / "ystore.db", {"json:notebook:1 \n": typed("a"), "chat/x": typed("a")})
    with pytest.raises(CommandError) as raised:
        run("pycrdt", tmp_path / "ystore.db")
    assert "json:notebook:1 \ufffd: not imported: it cannot be a room's name" in str(raised.value)
    assert "does not start with rooms/" in str(raised.value)
    run("pycrdt", tmp_path / "ystore.db", "--rename", "json:notebook:1 \n", "notebook", "--prefix", "old/")
    assert set(Document.objects.values_list("name", flat=True)) == {"notebook", "old/chat/x"}


@pytest.mark.parametrize(
    ("format_", "make", "what"),
    [
        ("pycrdt", lambda path: None, "there is no file or folder"),
        ("pycrdt", lambda path: path.mkdir(), "there are no .y files in"),
        ("palimpsest", lambda path: path.mkdir(), "there are no .jsonl files in"),
        ("pycrdt", lambda path: path.write_bytes(b"SQLite format 3\0 and no more"), "cannot be read as an SQLite"),
        ("pycrdt", lambda path: write_hocuspocus(path, {}), "has no table yupdates"),
        ("hocuspocus", lambda path: path.write_bytes(b"text"), "cannot be read as an SQLite"),
    ],
)
def test_what_is_no_such_source_is_said_in_a_sentence(
    format_: str, make: Callable[[Path], object], what: str, tmp_path: Path
) -> None:
    make(tmp_path / "source")
    with pytest.raises(CommandError, match=what) as said:
        run(format_, tmp_path / "source")
    assert "Run it again" not in str(said.value)  # it would say the same


def test_a_leveldb_folder_is_refused_with_the_way_round(tmp_path: Path) -> None:
    (tmp_path / "CURRENT").write_text("MANIFEST-000004\n")
    (tmp_path / "MANIFEST-000004").write_bytes(b"")
    with pytest.raises(CommandError, match=r"LevelDB folder.*docs/importing.md"):
        run("pycrdt", tmp_path)


def test_an_import_says_whose_the_documents_are_to_be(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="--owner USERNAME, or --open"):
        call_command("import_documents", "yjs", str(tmp_path))
    with pytest.raises(CommandError, match="no account of the name 'nobody'"):
        call_command("import_documents", "yjs", str(tmp_path), "--owner", "nobody")
    (tmp_path / "one.yjs").write_bytes(typed("a")[0])
    call_command("import_documents", "yjs", str(tmp_path), "--open", stdout=io.StringIO())
    assert Document.objects.get().open_to_all


def test_what_was_imported_goes_on_as_any_document(tmp_path: Path, owner: Any) -> None:
    run("pycrdt", sqlite_store(tmp_path, typed(WORDS)))
    document = Document.objects.get(name="minutes")
    append_rows(admitted_session(document, owner), [typed("!", client_id=7)[0]])
    assert times_of("minutes")[-1] > moments(16)[-1]
    name_version(document, name="as it came", seq=16, actor=owner)
    assert squash_document(document.pk, older_than=NEVER_WARM) >= 16
    assert_holds("minutes")


KILLED = """
import sys, django
django.setup()
from django.core.management import call_command
call_command("import_documents", "pycrdt", sys.argv[1], "--owner", "olga")
"""


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("table", ["documents_document", "history_update", "history_request"])
def test_an_import_that_is_killed_leaves_whole_documents_and_is_taken_up_again(table: str, tmp_path: Path) -> None:
    path = tmp_path / "ystore.db"
    write_sqlite(path, {"a": typed(WORDS), "b": typed(WORDS)})
    run("pycrdt", path, "--rename", "b", "not yet")
    Document.objects.filter(name="not yet").delete()
    kill_where_it_first_writes(KILLED, path, table=table)
    assert [each.name for each in Document.objects.all()] == ["a"]
    said = run("pycrdt", path)
    assert "a: already there" in said and "b: imported" in said
    assert text_of("b") == WORDS
    assert_holds("b")
