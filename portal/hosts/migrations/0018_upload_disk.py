from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('hosts', '0017_found_pools'),
    ]

    operations = [
        migrations.AddField(
            model_name='upload',
            name='disk',
            field=models.PositiveSmallIntegerField(null=True),
        ),
        migrations.AddField(
            model_name='upload',
            name='disks',
            field=models.JSONField(null=True),
        ),
    ]
