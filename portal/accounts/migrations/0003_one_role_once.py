from django.db import migrations, models
from django.db.models import Min


def remove_doubles(apps, schema_editor):
    """Keep the oldest of memberships that say the same; SQLite let them in."""
    memberships = apps.get_model("accounts", "Membership")
    said = memberships.objects.order_by().values("user", "project", "role")
    kept = said.annotate(oldest=Min("pk")).values_list("oldest", flat=True)
    memberships.objects.exclude(pk__in=list(kept)).delete()


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0002_user_session_stamp_user_theme_user_time_zone_and_more"),
    ]

    operations = [
        migrations.RunPython(remove_doubles, migrations.RunPython.noop),
        migrations.RemoveConstraint(model_name="membership", name="one_role_once_a_project"),
        migrations.AddConstraint(
            model_name="membership",
            constraint=models.UniqueConstraint(
                condition=models.Q(("project__isnull", False)),
                fields=("user", "project", "role"),
                name="one_role_once_a_project",
            ),
        ),
        migrations.AddConstraint(
            model_name="membership",
            constraint=models.UniqueConstraint(
                condition=models.Q(("project__isnull", True)),
                fields=("user", "role"),
                name="one_role_once_everywhere",
            ),
        ),
    ]
