"""Snapshots are compressed, and only the newest keeps what was deleted: the ones of before are dropped, and made anew as
their documents are opened. Runs say how much was inserted and deleted; those of before are counted from their segments."""

from typing import Any

from django.db import migrations, models

from history.crdt.lib0 import Malformed
from history.crdt.packing import PackedRow, unpack
from history.crdt.updates import decode_update, extent

SPLIT = 7

DROP_SNAPSHOTS = "DELETE FROM history_snapshot"
# They do not get smaller by Postgres's compression, which would try.
STORE_AS_IS = """
ALTER TABLE history_snapshot ALTER COLUMN state SET STORAGE EXTERNAL, ALTER COLUMN full_state SET STORAGE EXTERNAL
"""
STORE_COMPRESSED = """
ALTER TABLE history_snapshot ALTER COLUMN state SET STORAGE EXTENDED, ALTER COLUMN full_state SET STORAGE EXTENDED
"""
# One that is a difference is of no use without the one that it differs from.
GO_WITH_THE_BASE = """
ALTER TABLE history_snapshot ADD CONSTRAINT history_snapshot_base FOREIGN KEY (document_id, base_seq)
    REFERENCES history_snapshot (document_id, seq) ON DELETE CASCADE
"""
STAY_WITHOUT = "ALTER TABLE history_snapshot DROP CONSTRAINT history_snapshot_base"


def count_runs(apps: Any, schema_editor: Any) -> None:
    """Segment by segment, each within SEGMENT_BYTES_MAX."""
    segments, runs = apps.get_model("history", "Segment"), apps.get_model("history", "Run")
    for segment in segments.objects.order_by("document_id", "first_seq").iterator(chunk_size=1):
        counted: list[tuple[int, int, int, int]] = []
        for seq, row in enumerate(unpack(bytes(segment.payload)), segment.first_seq):
            counted.append((seq, row.session_id, *_extent_of(row)))
        of_segment = runs.objects.filter(
            document_id=segment.document_id, first_seq__gte=segment.first_seq, first_seq__lte=segment.last_seq
        )
        for run in of_segment:
            own = [
                row for row in counted if row[1] == run.session_id and run.first_seq <= row[0] <= run.last_seq
            ]
            of_segment.filter(first_seq=run.first_seq).update(
                inserted=sum(row[2] for row in own), deleted=sum(row[3] for row in own)
            )


def _extent_of(row: PackedRow) -> tuple[int, int]:
    try:
        return (0, 0) if row.kind == SPLIT else extent(decode_update(row.payload))
    except Malformed:
        return 0, 0


class Migration(migrations.Migration):
    dependencies = [("history", "0009_audit")]
    operations = [
        migrations.RunSQL(DROP_SNAPSHOTS, DROP_SNAPSHOTS),
        migrations.RunSQL(STORE_AS_IS, STORE_COMPRESSED),
        migrations.AddField("snapshot", "state_bytes", models.BigIntegerField(default=0), preserve_default=False),
        migrations.AddField("snapshot", "ladder_built", models.BooleanField(default=False)),
        migrations.AddField("snapshot", "base_seq", models.BigIntegerField(null=True)),
        migrations.RunSQL(GO_WITH_THE_BASE, STAY_WITHOUT),
        migrations.AlterField("snapshot", "full_state", models.BinaryField(default=b"")),
        migrations.AddField("run", "inserted", models.BigIntegerField(default=0), preserve_default=False),
        migrations.AddField("run", "deleted", models.BigIntegerField(default=0), preserve_default=False),
        migrations.RunPython(count_runs, migrations.RunPython.noop),
    ]
