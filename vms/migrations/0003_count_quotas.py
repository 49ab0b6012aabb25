import json

from django.db import migrations
from django.db.models import F

RESOURCES = ("vcpu", "memory", "disk", "machines")
ENDED_WITH_NOTHING = ("failed", "cancelled", "rejected", "expired")


def count_what_was_taken(apps, schema_editor):
    """Count for projects and people what was taken before each had a counter.

    A scope without a counter was unlimited and stays so. What is counted already is left as it is.
    """
    operations = apps.get_model("operations", "Operation").objects
    machines = apps.get_model("vms", "VirtualMachine").objects
    counters = apps.get_model("operations", "Counter").objects
    statuses = dict(machines.values_list("built_by", "status"))
    asked = operations.filter(kind="vm.create").exclude(state__in=ENDED_WITH_NOTHING).exclude(project=None)
    for operation in asked.order_by("pk").iterator():
        if operation.state == "succeeded" and operation.pk not in statuses:
            continue  # deleted for good since
        sizes = json.loads(operation.spec)["sizes"] | {"machines": 1}
        project, person = f"project:{operation.project_id}", f"person:{operation.requester_id}"
        for scope in (project, f"{project}/{person}", person):
            for resource in RESOURCES:
                counter, _made = counters.get_or_create(
                    scope=scope, resource=resource, defaults={"limit": None, "own": "/" not in scope}
                )
                _count(operation, counter, sizes[resource], statuses.get(operation.pk))


def _count(operation, counter, amount, status):
    stage = column = "held"
    if operation.state == "succeeded":
        # A machine in the bin keeps its disk and took the rest off the counters.
        binned = status == "binned" and counter.resource != "disk"
        stage, column = ("released", "") if binned else ("used", "used")
    _row, made = operation.reservations.get_or_create(
        counter=counter, defaults={"amount": amount, "stage": stage}
    )
    if made and column:
        type(counter).objects.filter(pk=counter.pk).update(**{column: F(column) + amount})


class Migration(migrations.Migration):
    dependencies = [
        ("vms", "0002_console"),
        ("operations", "0007_quotas_follow_defaults"),
    ]

    operations = [migrations.RunPython(count_what_was_taken, migrations.RunPython.noop)]
