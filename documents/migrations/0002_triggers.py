"""The database itself raises a document's access version, so that a right taken by raw SQL is noticed too."""

from django.db import migrations

FORWARD = """
CREATE FUNCTION documents_open_access() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO documents_access (document_id, version) VALUES (NEW.id, 1);
    RETURN NULL;
END $$;
CREATE TRIGGER documents_open_access AFTER INSERT ON documents_document
    FOR EACH ROW EXECUTE FUNCTION documents_open_access();

CREATE FUNCTION documents_raise_access() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_TABLE_NAME = 'documents_document' THEN
        UPDATE documents_access SET version = version + 1 WHERE document_id = NEW.id;
        RETURN NULL;
    END IF;
    IF TG_OP <> 'INSERT' THEN
        UPDATE documents_access SET version = version + 1 WHERE document_id = OLD.document_id;
    END IF;
    IF TG_OP = 'INSERT' OR (TG_OP = 'UPDATE' AND NEW.document_id <> OLD.document_id) THEN
        UPDATE documents_access SET version = version + 1 WHERE document_id = NEW.document_id;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER documents_raise_access AFTER INSERT OR UPDATE OR DELETE ON documents_membership
    FOR EACH ROW EXECUTE FUNCTION documents_raise_access();
CREATE TRIGGER documents_raise_access AFTER UPDATE OF deleted_at ON documents_document
    FOR EACH ROW WHEN (OLD.deleted_at IS DISTINCT FROM NEW.deleted_at) EXECUTE FUNCTION documents_raise_access();
"""

BACKWARD = """
DROP TRIGGER documents_raise_access ON documents_document;
DROP TRIGGER documents_raise_access ON documents_membership;
DROP FUNCTION documents_raise_access();
DROP TRIGGER documents_open_access ON documents_document;
DROP FUNCTION documents_open_access();
"""


class Migration(migrations.Migration):
    dependencies = [("documents", "0001_initial")]
    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
