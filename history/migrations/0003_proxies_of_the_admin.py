from django.db import migrations


class Migration(migrations.Migration):

    dependencies = [
        ('documents', '0001_initial'),
        ('history', '0002_triggers'),
    ]

    operations = [
        migrations.CreateModel(
            name='DocumentHistory',
            fields=[
            ],
            options={
                'verbose_name': 'document history',
                'verbose_name_plural': 'document histories',
                'proxy': True,
                'default_permissions': (),
                'indexes': [],
                'constraints': [],
            },
            bases=('documents.document',),
        ),
        migrations.CreateModel(
            name='Edit',
            fields=[
            ],
            options={
                'verbose_name': 'edit',
                'verbose_name_plural': 'edits: who edited what',
                'proxy': True,
                'default_permissions': (),
                'indexes': [],
                'constraints': [],
            },
            bases=('documents.document',),
        ),
    ]
