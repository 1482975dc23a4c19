"""Versions, and the triggers that hold a locked one as it is, whoever writes past the service."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

FORWARD = """
CREATE FUNCTION history_version_keep() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (NEW.document_id, NEW.id, NEW.seq, NEW.at, NEW.name, NEW.note, NEW.created_at, NEW.automatic)
        IS DISTINCT FROM (OLD.document_id, OLD.id, OLD.seq, OLD.at, OLD.name, OLD.note, OLD.created_at, OLD.automatic)
        -- An account that is deleted leaves its versions without an author.
        OR (NEW.created_by_id IS NOT NULL AND NEW.created_by_id IS DISTINCT FROM OLD.created_by_id)
    THEN
        RAISE EXCEPTION 'version % of document % is locked', OLD.id, OLD.document_id USING ERRCODE = '23001';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER history_version_keep BEFORE UPDATE ON history_version
    FOR EACH ROW WHEN (OLD.locked) EXECUTE FUNCTION history_version_keep();

CREATE FUNCTION history_version_hold() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT 1 FROM documents_document WHERE id = OLD.document_id) THEN
        RAISE EXCEPTION 'version % of document % is locked', OLD.id, OLD.document_id USING ERRCODE = '23001';
    END IF;
    RETURN NULL;
END $$;
-- At COMMIT, so that a document can go with all that hangs on it, in whatever order.
CREATE CONSTRAINT TRIGGER history_version_hold AFTER DELETE ON history_version
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (OLD.locked) EXECUTE FUNCTION history_version_hold();
"""

BACKWARD = """
DROP TRIGGER history_version_hold ON history_version;
DROP FUNCTION history_version_hold();
DROP TRIGGER history_version_keep ON history_version;
DROP FUNCTION history_version_keep();
"""


class Migration(migrations.Migration):

    dependencies = [
        ('documents', '0004_access_of_open_rooms'),
        ('history', '0007_manifests'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name='Version',
            fields=[
                ('pk', models.CompositePrimaryKey('document_id', 'id', blank=True, editable=False, primary_key=True, serialize=False)),
                ('id', models.BigIntegerField()),
                ('seq', models.BigIntegerField()),
                ('at', models.DateTimeField(null=True)),
                ('name', models.CharField(blank=True, max_length=200)),
                ('note', models.CharField(blank=True, max_length=2000)),
                ('created_at', models.DateTimeField()),
                ('locked', models.BooleanField(default=False)),
                ('automatic', models.BooleanField(default=False)),
                ('created_by', models.ForeignKey(null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('document', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='documents.document')),
            ],
            options={
                'constraints': [models.UniqueConstraint(condition=models.Q(('automatic', False)), fields=('document', 'name'), name='history_version_name'), models.UniqueConstraint(condition=models.Q(('automatic', True)), fields=('document', 'seq'), name='history_version_once'), models.CheckConstraint(condition=models.Q(models.Q(('automatic', True), ('name', '')), models.Q(('automatic', False), models.Q(('name', ''), _negated=True)), _connector='OR'), name='history_version_named')],
            },
        ),
        migrations.RunSQL(FORWARD, BACKWARD),
    ]
