"""Rows that are large alone, which may fill a segment with a few: squash looks for them in every document."""

from django.db import migrations

# On no other row does it cost anything; `due.COLD_DOCUMENTS` asks in these words.
INDEX_LARGE_ROWS = """
CREATE INDEX history_update_large ON history_update (document_id, seq) WHERE octet_length(payload) > 16384
"""


class Migration(migrations.Migration):
    dependencies = [("history", "0012_runs_by_document_and_time")]
    operations = [migrations.RunSQL(INDEX_LARGE_ROWS, "DROP INDEX history_update_large")]
