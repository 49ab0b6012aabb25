"""What tests of adoption make and look at: a domain by other means than the portal, and its adoption."""

import uuid

from django.db import transaction
from django.utils import timezone

from portal.drivers.types import Accelerator, DiskSpec, DomainSpec, DomainState, VolumeSpec
from portal.hosts.models import Host
from portal.hosts.observations import Seen, write
from portal.operations import runner
from portal.operations.models import Counter
from portal.operations.services import claim
from portal.operations.states import State
from tests.factories import GIB
from vms import noted
from vms.adoption.services import adopt_machine
from vms.models import Definition, VirtualMachine

FOLDER = "/example"


def make(driver, host, name="Old_Web.1", *, disks=(), runs=False, change=None, **values):
    """Make a domain by other means than the portal, and let the watcher see it; return what was seen."""
    for disk in disks:
        if disk.startswith("volume-"):
            driver.create_volume(VolumeSpec("example-pool", disk, 2 * GIB))
    spec = DomainSpec(
        name=name,
        uuid=str(uuid.uuid4()),
        **{"vcpus": 2, "memory_bytes": GIB, "accelerator": Accelerator.EMULATION, **values},
        disks=tuple(
            DiskSpec(disk if disk.startswith("/") else f"{FOLDER}/{disk}", f"vd{letter}")
            for disk, letter in zip(disks, "abcdefgh", strict=False)
        ),
    )
    driver.define(spec)
    if change:
        driver.redefine(spec.uuid, change, driver.definition(spec.uuid).digest)
    if runs:
        driver._domains[spec.uuid].state = DomainState.RUNNING
        driver._domains[spec.uuid].running = driver._domains[spec.uuid].persistent
    return see(host, driver, spec.uuid)


def see(host, driver, name):
    noted.note(host.pk, name, driver.definition(name), timezone.now())
    return Definition.objects.get(host=host, uuid=name)


def listed(host, driver):
    """Let the watcher see all domains of the host, as in each of its lists."""
    told = Seen()
    told.listed, told.listed_began = driver.list_domains(), timezone.now()
    with transaction.atomic():
        write(Host.objects.get(pk=host.pk), told)


def adopt(actor, definition, cast, **values):
    wanted = {"project": cast.project, "owner": cast.requester, "name": "old-web", "lease_days": 30}
    return adopt_machine(actor=actor, definition=definition, **wanted | values)


def finish(operation):
    runner.carry_on(claim(operation.pk, worker="worker"), worker="worker")
    operation.refresh_from_db()
    return operation


def adopted(actor, definition, cast, **values):
    done = finish(adopt(actor, definition, cast, **values))
    assert done.state == State.SUCCEEDED, list(done.steps.values_list("error_raw", flat=True))
    return VirtualMachine.objects.get(built_by=done)


def taken(scope, stage="used"):
    rows = Counter.objects.filter(scope=scope).values_list("resource", stage)
    return {resource: amount for resource, amount in rows if amount}


def left(host, resource):
    return Counter.objects.get(scope=host.scope, resource=resource).left
