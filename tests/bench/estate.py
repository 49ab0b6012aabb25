"""An estate in the database: projects, people, hosts and machines. Plain example data, no real ones.

Needs Django set up. Not for: what runs; nothing here exists on any host.
"""

import uuid
from collections.abc import Sequence
from datetime import timedelta

from django.db import transaction
from django.utils import timezone

from portal.accounts.models import Membership, Project, Role, User
from portal.hosts.models import Health, Host, Image, PoolAttachment, StoragePool
from portal.operations.models import Operation
from portal.operations.spec import RequestSpec
from portal.operations.states import State
from vms.models import Disk, Observed, Status, VirtualMachine

GIB = 1 << 30
PROJECTS, PEOPLE = 20, 50
NAMES = ("web", "db", "cache", "build", "mail", "queue", "proxy", "batch")
STATES = (*(Observed.RUNNING,) * 7, Observed.SHUTOFF, Observed.SHUTOFF, Observed.PAUSED)
DISK = 10 * GIB
BATCH = 1000


def hosts(uris: Sequence[str]) -> list[Host]:
    """Add hosts with a pool each, as they are once enrolled and seen."""
    made = Host.objects.bulk_create(
        Host(
            name=f"rack-{number:03}",
            uri=uri,
            accelerator="qemu",
            observed_health=Health.UP,
            observed_at=timezone.now(),
            observed_cpus=64,
            observed_memory=512 * GIB,
        )
        for number, uri in enumerate(uris)
    )
    pools = StoragePool.objects.bulk_create(StoragePool(name=f"pool-{host.name}") for host in made)
    PoolAttachment.objects.bulk_create(
        PoolAttachment(host=host, pool=pool, path=f"/srv/{pool.name}")
        for host, pool in zip(made, pools, strict=True)
    )
    return made


def people() -> tuple[list[Project], list[User]]:
    """Add projects and requesters, each in two of them; the account `requester` is in five."""
    projects = Project.objects.bulk_create(Project(name=f"Project {number:02}") for number in range(PROJECTS))
    made = User.objects.bulk_create(User(username=f"person-{number:02}") for number in range(PEOPLE))
    requester = User.objects.get(username="requester")
    held = [(user, projects[(n + step) % PROJECTS]) for n, user in enumerate(made) for step in (0, 7)]
    held += [(requester, project) for project in projects[:5]]
    Membership.objects.bulk_create(
        Membership(user=user, project=project, role=Role.REQUESTER) for user, project in held
    )
    return projects, made


@transaction.atomic
def machines(count: int, on: Sequence[Host], *, uuids: Sequence[str] = ()) -> list[VirtualMachine]:
    """Add `count` machines, shared out among hosts, projects and people; one in ten is the requester's.

    One in twenty is in the bin, unless `uuids` names the domains that the machines are.
    """
    projects, owners = people()
    requester, image = User.objects.get(username="requester"), Image.objects.first()
    made = []
    for number in range(count):
        project = projects[number % PEOPLE % PROJECTS]
        owner = owners[number % PEOPLE]
        if number % 10 == 0:
            owner, project = requester, projects[number // 10 % 5]
        made.append(
            VirtualMachine(
                name=f"{NAMES[number % len(NAMES)]}-{number:05}",
                uuid=uuids[number] if uuids else uuid.uuid4(),
                project=project,
                owner=owner,
                host=on[number % len(on)],
                item_name=image.title,
                image=image,
                vcpus=1 + number % 4,
                memory=(1 + number % 8) * GIB,
                login_user="root",
                status=Status.BINNED if number % 20 == 7 and not uuids else Status.ACTIVE,
                lease_until=timezone.now() + timedelta(days=1 + number * 7 % 360),
                observed_state=Observed.RUNNING if uuids else STATES[number % len(STATES)],
                observed_at=timezone.now(),
                observed_address=f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}",
            )
        )
    built = Operation.objects.bulk_create(_built(machine) for machine in made)
    for machine, operation in zip(made, built, strict=True):
        machine.built_by = operation
    VirtualMachine.objects.bulk_create(made, batch_size=BATCH)
    pools = dict(PoolAttachment.objects.filter(host__in=on).values_list("host", "pk"))
    Disk.objects.bulk_create(
        (
            Disk(
                machine=machine,
                pool_id=pools[machine.host_id],
                volume_name=f"{machine.name}-vda.qcow2",
                capacity=DISK,
            )
            for machine in made
        ),
        batch_size=BATCH,
    )
    return made


def _built(machine: VirtualMachine) -> Operation:
    sizes = {"vcpu": machine.vcpus, "memory": machine.memory, "disk": DISK, "lease": 30 * 86_400}
    spec = RequestSpec(
        kind="vm.create", sizes=sizes, pinned={"name": machine.name, "item": machine.item_name}
    )
    return Operation(
        kind="vm.create",
        project=machine.project,
        requester=machine.owner,
        state=State.SUCCEEDED,
        spec=spec.text(),
        spec_hash=spec.hash(),
        title=f"Create {machine.name}",
        token=uuid.uuid4(),
        finished_at=timezone.now(),
    )
