from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("operations", "0013_step_percent")]

    operations = [
        migrations.AlterField("operation", "title", models.CharField(blank=True, max_length=250)),
    ]
