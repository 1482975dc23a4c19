"""Closing or opening a room to all raises its access version too, by raw SQL as well."""

from django.db import migrations

FORWARD = """
DROP TRIGGER documents_raise_access ON documents_document;
CREATE TRIGGER documents_raise_access AFTER UPDATE OF deleted_at, open_to_all ON documents_document
    FOR EACH ROW WHEN ((OLD.deleted_at, OLD.open_to_all) IS DISTINCT FROM (NEW.deleted_at, NEW.open_to_all))
    EXECUTE FUNCTION documents_raise_access();
"""

BACKWARD = """
DROP TRIGGER documents_raise_access ON documents_document;
CREATE TRIGGER documents_raise_access AFTER UPDATE OF deleted_at ON documents_document
    FOR EACH ROW WHEN (OLD.deleted_at IS DISTINCT FROM NEW.deleted_at) EXECUTE FUNCTION documents_raise_access();
"""


class Migration(migrations.Migration):
    dependencies = [("documents", "0003_open_to_all")]
    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
