from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('hosts', '0018_upload_disk'),
    ]

    operations = [
        migrations.AddField(
            model_name='image',
            name='edited',
            field=models.JSONField(blank=True, default=list),
        ),
        migrations.AddField(
            model_name='image',
            name='min_disk',
            field=models.PositiveBigIntegerField(default=0),
        ),
    ]
