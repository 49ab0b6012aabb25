from django.db import migrations

from portal.audit import triggers


class Migration(migrations.Migration):
    """Install the triggers again: those of 0002 let INSERT OR REPLACE through on SQLite."""

    dependencies = [("audit", "0002_triggers")]

    # Back again they stay: what refuses more does no harm to an older portal.
    operations = [migrations.RunPython(triggers.install, migrations.RunPython.noop)]
