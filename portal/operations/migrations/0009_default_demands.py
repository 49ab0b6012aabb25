from django.db import migrations


def demand_the_default(apps, schema_editor):
    """Give what waits from before the one level that it was asked under: an approver of the project."""
    demand, level = (apps.get_model("operations", name) for name in ("Demand", "DemandLevel"))
    for operation in apps.get_model("operations", "Operation").objects.filter(state="awaiting_approval"):
        made = demand.objects.create(operation=operation)
        level.objects.create(demand=made, number=1, who="project_approvers", needed=1)


class Migration(migrations.Migration):

    dependencies = [
        ('operations', '0008_policies'),
    ]

    operations = [
        migrations.RunPython(demand_the_default, migrations.RunPython.noop, elidable=True),
    ]
