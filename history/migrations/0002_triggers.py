"""A log begins with its document, and a change of rights takes the same lock as an append: commit order decides."""

from django.db import migrations

FORWARD = """
ALTER TABLE history_head SET (fillfactor = 70);

CREATE FUNCTION history_open_log() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO history_head (document_id, seq, hash, at, epoch) VALUES (NEW.id, 0, '', clock_timestamp(), 1);
    RETURN NULL;
END $$;
CREATE TRIGGER history_open_log AFTER INSERT ON documents_document
    FOR EACH ROW EXECUTE FUNCTION history_open_log();

CREATE FUNCTION history_fence() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM history_head WHERE document_id = NEW.document_id FOR UPDATE;
    RETURN NULL;
END $$;
CREATE TRIGGER history_fence AFTER UPDATE ON documents_access
    FOR EACH ROW EXECUTE FUNCTION history_fence();
"""

BACKWARD = """
DROP TRIGGER history_fence ON documents_access;
DROP FUNCTION history_fence();
DROP TRIGGER history_open_log ON documents_document;
DROP FUNCTION history_open_log();
ALTER TABLE history_head RESET (fillfactor);
"""


class Migration(migrations.Migration):
    dependencies = [("history", "0001_initial"), ("documents", "0002_triggers")]
    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
