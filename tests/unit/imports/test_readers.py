"""Readers of foreign stores: whatever the bytes are, they give out rows and places, and raise nothing else."""

import bz2
import gzip
import io
import json
import lzma
import random
import sqlite3
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from history.crdt.lib0 import Malformed
from history.crdt.parts import pieces_of
from history.crdt.state_vectors import decode_state_vector
from history.crdt.updates import MissingDependency
from history.imports.compression import COMPRESSIONS, decompressor, looks_compressed, not_compressed
from history.imports.export_lines import STAGES, BadExport, lines_in
from history.imports.hocuspocus import HocuspocusSqlite
from history.imports.pycrdt_files import PycrdtFileStore, rows_in
from history.imports.pycrdt_sqlite import PycrdtSqliteStore
from history.imports.sources import BadRow, Row, SourceError, SourceRow, moment_in
from tests.builders import typed
from tests.foreign_stores import (
    BEGIN,
    file_of_version_1,
    record_of_version_2,
    times,
    write_hocuspocus,
    write_sqlite,
)
from tests.histories import random_history, replay

UPDATES = typed("abcdefgh")
FILE = b"VERSION:2\n" + b"".join(map(record_of_version_2, UPDATES, times(8)))
FILES = [FILE, file_of_version_1(UPDATES, metadata=True), file_of_version_1(UPDATES, metadata=False)]


def read(data: bytes) -> list[Row]:
    return list(rows_in(io.BytesIO(data), len(data), not_compressed))


def updates_of(rows: list[Row]) -> list[bytes]:
    return [row.update for row in rows if isinstance(row, SourceRow)]


WRITTEN = object()
"""What a generator of rows gives out before it reads the first one."""


def sqlite_rows(folder: Path, updates: list[bytes]) -> Iterator[object]:
    write_sqlite(folder / "ystore.db", {"minutes": updates})
    yield WRITTEN
    with closing(PycrdtSqliteStore(folder / "ystore.db", not_compressed)) as store:
        (document,) = store.documents()
        yield from document.rows()


def file_rows(folder: Path, updates: list[bytes]) -> Iterator[object]:
    records = map(record_of_version_2, updates, times(len(updates)))
    (folder / "minutes.y").write_bytes(b"VERSION:2\n" + b"".join(records))
    yield WRITTEN
    (document,) = PycrdtFileStore(folder / "minutes.y", not_compressed).documents()
    yield from document.rows()


def export_rows(folder: Path, updates: list[bytes]) -> Iterator[object]:
    lines = [{"line": "document"}, *({"line": "row", "payload": each.hex()} for each in updates), {"line": "end"}]
    (folder / "export.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    yield WRITTEN
    with (folder / "export.jsonl").open("rb") as file:
        yield from lines_in(file, payload_bytes_max=200_000)


@pytest.mark.parametrize("rows_of", [sqlite_rows, file_rows, export_rows])
def test_of_a_large_store_only_a_row_is_in_memory_at_a_time(
    rows_of: Callable[[Path, list[bytes]], Iterator[object]], tmp_path: Path
) -> None:
    rows = rows_of(tmp_path, [bytes(100_000)] * 40)
    assert next(rows) is WRITTEN
    tracemalloc.start()
    try:
        count = sum(1 for _ in rows)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count >= 40
    assert peak < 1_500_000


@pytest.mark.parametrize("data", FILES)
def test_a_file_store_that_is_cut_off_gives_what_stands_before_the_cut(data: bytes) -> None:
    assert updates_of(read(data)) == UPDATES
    for length in range(len(data)):
        rows = read(data[:length])
        updates = updates_of(rows)
        assert updates == UPDATES[: len(updates)]
        assert all(isinstance(row, SourceRow) for row in rows[:-1])
        assert all(row.place.startswith("byte ") for row in rows)


def test_no_file_is_a_file_store_of_nothing() -> None:
    assert read(b"") == []
    assert read(b"VERSION:2\n") == []
    (bad,) = read(b"VERSION:9\n" + FILE[10:])
    assert isinstance(bad, BadRow) and "version b'9'" in bad.what


@given(st.binary(max_size=300), st.booleans())
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_read_as_rows_with_places(data: bytes, with_header: bool) -> None:
    for row in read(b"VERSION:2\n" + data if with_header else data):
        assert row.place


@given(st.sampled_from(FILES), st.integers(0, 10_000), st.integers(0, 255))
@settings(max_examples=300, deadline=None)
def test_a_byte_that_has_changed_is_never_more_than_a_bad_row(data: bytes, place: int, byte: int) -> None:
    place %= len(data)
    read(data[:place] + bytes((byte,)) + data[place + 1 :])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "ystore.db"
    write_sqlite(path, {f"document {number}": UPDATES for number in range(20)}, checkpoint_interval=3)
    return path


def rows_of(path: Path) -> Iterator[Row]:
    with closing(PycrdtSqliteStore(path, not_compressed)) as source:
        source.count()
        for document in source.documents():
            yield from document.rows()


def test_a_damaged_database_is_a_source_error_or_bad_rows(store: Path, tmp_path: Path) -> None:
    """SQLite finds by itself what of its pages is damaged; what it does not find comes out as rows."""
    whole = store.read_bytes()
    assert len(updates_of(list(rows_of(store)))) == 20 * 9
    path = tmp_path / "damaged.db"
    rng = random.Random(1)
    ends: set[bool | None] = set()
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(rng.choice([1, 4, 64])):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        path.write_bytes(damaged[: rng.choice([len(damaged), rng.randrange(len(damaged))])])
        try:
            ends.add({type(row) for row in rows_of(path)} == {SourceRow})
        except SourceError as error:
            assert "damaged.db" in str(error)
            ends.add(None)
    assert ends >= {True, None}


def test_a_damaged_hocuspocus_database_is_a_source_error_or_bad_rows(tmp_path: Path) -> None:
    path = tmp_path / "h.sqlite"
    write_hocuspocus(path, {f"{number}": UPDATES[0] * 90 for number in range(40)})
    whole = path.read_bytes()
    rng = random.Random(2)
    for _ in range(100):
        damaged = bytearray(whole)
        for _ in range(16):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        path.write_bytes(damaged)
        try:
            with closing(HocuspocusSqlite(path)) as source:
                for document in source.documents():
                    list(document.rows())
        except SourceError as error:
            assert "h.sqlite" in str(error)


def test_a_value_that_is_no_blob_is_a_bad_row(tmp_path: Path) -> None:
    path = tmp_path / "ystore.db"
    write_sqlite(path, {"a": UPDATES[:1]})
    with closing(sqlite3.connect(path)) as db, db:
        db.executemany("INSERT INTO yupdates VALUES ('a', ?, NULL, ?)", [("text", 1.0), (7, 2.0), (None, "noon")])
    rows = list(rows_of(path))
    assert [(type(row), row.place) for row in rows] == [
        (BadRow, "rowid 2"),
        (BadRow, "rowid 3"),
        (SourceRow, "rowid 1"),
        (BadRow, "rowid 4"),
    ]


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_what_is_not_compressed_or_cut_off_is_a_value_error(name: str) -> None:
    packers: dict[str, Callable[[bytes], bytes]] = {
        "zlib": zlib.compress,
        "gzip": gzip.compress,
        "bz2": bz2.compress,
        "lzma": lzma.compress,
        "zstd": zstandard.compress,
    }
    decompress = decompressor(name)
    packed = packers[name](FILE)
    assert decompress(packed) == FILE
    assert looks_compressed(packed) == name
    for length in range(len(packed) - 1):
        with pytest.raises(ValueError, match=name):
            decompress(packed[:length])
    with pytest.raises(ValueError, match=name):
        decompress(UPDATES[0])


LINES = b"".join(
    json.dumps({"line": kind, "n": 7}).encode() + b"\n" for kind in ("document", "session", "row", "version", "end")
)


@given(st.lists(st.tuples(st.integers(0, len(LINES) - 1), st.integers(0, 255)), max_size=3), st.integers(0, len(LINES)))
@settings(max_examples=300, deadline=None)
def test_whatever_an_export_holds_its_lines_are_read_or_refused(changes: list[tuple[int, int]], length: int) -> None:
    data = bytearray(LINES)
    for place, byte in changes:
        data[place] = byte
    try:
        for line in lines_in(io.BytesIO(data[:length]), payload_bytes_max=100):
            assert line.kind in STAGES
    except BadExport as error:
        assert error.line >= 1


def test_a_line_is_no_longer_than_a_row_may_be() -> None:
    line = b'{"line":"document","x":"' + b"x" * 70_000 + b'"}\n'
    with pytest.raises(BadExport, match="line 1: it is longer"):
        list(lines_in(io.BytesIO(line), payload_bytes_max=100))
    with pytest.raises(BadExport, match="no JSON"):
        list(lines_in(io.BytesIO(b"[" * 60_000), payload_bytes_max=100))


@pytest.mark.parametrize("value", [None, "", "noon", float("nan"), float("inf"), -1.0, 0, 1e300, b"2023", True - 1])
def test_what_is_no_time_is_none(value: object) -> None:
    assert moment_in(value) is None


def test_times_are_of_utc() -> None:
    for value in (BEGIN.timestamp(), "2023-04-05 06:07:08.250", "2023-04-05T08:07:08.250+02:00", BEGIN):
        assert moment_in(value) == BEGIN


@pytest.mark.parametrize("seed", range(12))
def test_pieces_say_one_after_the_other_what_the_whole_says(seed: int) -> None:
    state = replay(random_history(seed, edits=60, skip_gc=seed % 2 == 0), skip_gc=seed % 2 == 0).get_update()
    whole = replay([state], skip_gc=True)
    for bytes_max, parts_max in ((1, 1), (64, 7), (300, 1000), (10**6, 10**6)):
        pieces = list(pieces_of(state, {}, bytes_max=bytes_max, parts_max=parts_max))
        doc = replay([], skip_gc=True)
        for piece in pieces:
            known = decode_state_vector(doc.get_state())
            list(pieces_of(piece, known, bytes_max=10**6, parts_max=10**6))  # MissingDependency, if it built on more
            doc.apply_update(piece)
        assert decode_state_vector(doc.get_state()) == decode_state_vector(whole.get_state())
        assert doc.get_update() == whole.get_update()


def test_an_update_that_needs_more_has_no_first_piece() -> None:
    with pytest.raises(MissingDependency):
        next(pieces_of(UPDATES[3], {}, bytes_max=1, parts_max=1))
    with pytest.raises(Malformed):
        next(pieces_of(UPDATES[3][:-1], {}, bytes_max=1, parts_max=1))
