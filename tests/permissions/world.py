"""A small world that every address can be asked in: people of every role, and one row of each thing."""

import secrets
import uuid
from dataclasses import asdict
from datetime import timedelta
from types import SimpleNamespace

from django.utils import timezone

from networks.models import Port
from portal.accounts import notices, public_keys
from portal.accounts import services as accounts
from portal.accounts.models import Membership, Project, Role, User
from portal.drivers.fake import FakeDriver
from portal.hosts.models import FoundPool, Health, ImportNetwork, PoolAttachment, StoragePool, Upload
from portal.operations import quotas, scopes
from portal.operations.models import Delegation, Operation
from portal.operations.policies import services as policies
from portal.operations.policies.rules import Rule
from portal.operations.services import request_operation
from portal.operations.spec import RequestSpec
from tests import factories
from vms.exports.kind import FOLDER
from vms.extending import request_extension
from vms.models import (
    CatalogueItem,
    Definition,
    Export,
    Flavour,
    InstallTemplate,
    Observed,
    Status,
    VirtualMachine,
)
from vms.services import request_machine

ANONYMOUS = "anonymous"
#: Of what is running.
BATCH = uuid.UUID("00000000-0000-4000-8000-00000000ba7c")
#: Of the machine's one network card.
MAC = "52:54:00:00:00:01"
#: Who asks. `owner` asked for everything in the world; `colleague` is another requester of the same project,
#: `stranger` holds every role, but in another project; `nobody` is signed in and holds none.
IN_PROJECT = {
    "owner": Role.REQUESTER,
    "colleague": Role.REQUESTER,
    "approver": Role.APPROVER,
    "operator": Role.OPERATOR,
    "auditor": Role.AUDITOR,
    "admin": Role.ADMIN,
}
EVERYWHERE = {f"{role}_everywhere": role for role in Role}
PEOPLE = ("nobody", "stranger", *IN_PROJECT, *EVERYWHERE)
EVERYBODY = (ANONYMOUS, *PEOPLE)


def make_world():
    """Return the rows by name; nothing in it was changed by anybody yet."""
    world = SimpleNamespace(project=Project.objects.create(name="own"))
    other = Project.objects.create(name="other")
    world.people = {name: User.objects.create(username=name) for name in PEOPLE}
    for role in Role:
        Membership.objects.create(user=world.people["stranger"], project=other, role=role)
    for name, role in IN_PROJECT.items():
        Membership.objects.create(user=world.people[name], project=world.project, role=role)
    for name, role in EVERYWHERE.items():
        Membership.objects.create(user=world.people[name], role=role)
    world.owner = world.people["owner"]
    world.person = world.people["nobody"]
    world.role = Membership.objects.get(user=world.people["colleague"])
    _things(world)
    return world


def _things(world):
    owner, chief = world.people["owner"], world.people["admin_everywhere"]
    told = asdict(FakeDriver().readiness())
    world.host = factories.make_host(uri="fake://permissions/", readiness=told)
    # Away, as one must be to be given up; nothing else looks at that.
    world.ssh_host = factories.make_ssh_host(observed_health=Health.STALE)
    place = factories.make_place(world.host)
    pool = StoragePool.objects.create(name="other-pool")
    room = {"observed_capacity": factories.GIB, "observed_available": factories.GIB}
    world.other_pool = PoolAttachment.objects.create(host=world.host, pool=pool, path="/other", **room)
    taken = StoragePool.objects.create(name="taken-pool")
    world.taken_pool = PoolAttachment.objects.create(
        host=world.host, pool=taken, path="/srv/taken", taken_over=True
    )
    found = {"observed_name": "found", "observed_kind": "dir", "observed_path": "/srv/found"}
    world.found_pool = FoundPool.objects.create(host=world.host, uuid=uuid.uuid4(), **found)
    world.place = place
    world.volume = place.volumes.create(
        name="left.qcow2",
        observed_path=f"{place.path}/left.qcow2",
        observed_capacity=factories.MIB,
        observed_format="qcow2",
    )
    place.observed_capacity = place.observed_available = 100 * factories.GIB
    place.save()
    world.network = factories.make_network()
    world.catalogue = factories.make_catalogue(place.images.get().image, world.network)
    world.item, world.image = world.catalogue.item, world.catalogue.item.image
    world.unused_image = factories.make_image(name="unused")
    allowed = {"network": "10.1.0.0/16", "reason": "our mirror", "person": chief}
    world.import_network = ImportNetwork.objects.create(**allowed)
    wanted = {"title": "Handed in", "kind": "iso"}
    world.upload = Upload.objects.create(person=chief, wanted=wanted)
    world.sent_upload = Upload.objects.create(person=chief, wanted=wanted, file_name="a", file_size=1 << 20)
    world.failed_upload = Upload.objects.create(
        person=chief, wanted=wanted, address="https://example.org/", state=Upload.State.FAILED
    )
    disks = [{"number": number, "capacity": 1, "format": "vmdk", "file": "a"} for number in (1, 2)]
    two = {"person": chief, "address": "https://example.org/", "state": Upload.State.FAILED, "disks": disks}
    world.two_disks_upload = Upload.objects.create(wanted=wanted, **two)
    volume = {"kind": "volume", "title": "up.qcow2", "name": "up.qcow2"}
    two["wanted"] = volume | {"name": "two.qcow2"}
    world.two_disks_volume_upload = Upload.objects.create(pool=place, **two)
    told = {"person": chief, "pool": place, "wanted": volume}
    world.volume_upload = Upload.objects.create(**told)
    world.sent_volume_upload = Upload.objects.create(**told, file_name="a", file_size=1 << 20)
    world.failed_volume_upload = Upload.objects.create(**told, state=Upload.State.FAILED)
    world.newer_image = factories.make_image(
        name=world.image.name, version="2", virtual_size=world.image.virtual_size
    )
    world.unused = CatalogueItem.objects.create(name="Unused", description="", image=world.image, position=1)
    world.size = Flavour.objects.create(name="spare", vcpus=1, memory=factories.GIB, disk=factories.GIB)
    wish = factories.make_wish(world.catalogue, name="asked")
    world.request = request_machine(actor=owner, project=world.project, wish=wish, token=uuid.uuid4())
    world.machine = make_machine(world, "machine", place)
    world.machine.disks.create(
        pool=place, target="vdb", volume_name=f"extra-{secrets.token_hex(4)}", capacity=factories.GIB
    )
    disks = [
        {"device": "disk", "target": {"dev": disk.target, "bus": "virtio"}, "source": {"file": disk.path}}
        for disk in world.machine.disks.order_by("target")
    ]
    seed = {"file": f"{place.path}/{world.machine.domain_name}-seed.iso"}
    disks.append({"device": "cdrom", "target": {"dev": "sda", "bus": "scsi"}, "source": seed})
    disks.append({"device": "cdrom", "target": {"dev": "sdb", "bus": "sata"}})
    # Not of `network`, which can be removed.
    other = factories.make_network(78)
    Port.objects.create(network=other, host=world.host, domain_uuid=world.machine.uuid, mac=MAC)
    card = {"type": "network", "mac": MAC, "source": {"network": other.spec.name}}
    defined = {
        "vcpus": 1,
        "memory_bytes": 128 * factories.MIB,
        "type": "qemu",
        "os": {"boot": [{"dev": "hd"}], "machine": "pc-q35-7.2", "architecture": "x86_64"},
        "devices": {"interfaces": [card], "disks": disks},
    }
    world.definition = Definition.objects.create(
        host=world.machine.host,
        uuid=world.machine.uuid,
        observed_digest="d",
        observed_persistent=defined,
        observed_at=timezone.now(),
    )
    world.with_devices = _with_devices(world)
    world.waiting = _waiting(world)
    world.foreign = Definition.objects.create(
        host=world.machine.host,
        uuid=uuid.uuid4(),
        observed_name="foreign",
        observed_digest="f",
        observed_persistent={**defined, "type": "qemu", "vcpus": 1, "memory_bytes": factories.MIB},
        observed_at=timezone.now(),
    )
    world.adopted = make_machine(world, "adopted", place, adopted=True)
    Definition.objects.create(
        host=world.host,
        uuid=world.adopted.uuid,
        observed_digest="a",
        observed_persistent={**defined, "type": "qemu", "vcpus": 1, "memory_bytes": factories.GIB},
        observed_at=timezone.now(),
    )
    world.saved = make_machine(world, "saved", place, observed_state=Observed.SAVED)
    world.binned = make_machine(
        world, "binned", place, status=Status.BINNED, bin_until=timezone.now() + timedelta(days=7)
    )
    world.export = make_export(world)
    extended = make_machine(world, "extended", place)
    longer = {"days": 30, "why": "not done yet", "token": uuid.uuid4()}
    world.extension = request_extension(actor=owner, machine=extended, **longer)
    world.running = make_operation(world, "running", state="running")
    Operation.objects.filter(pk=world.running.pk).update(batch=BATCH)
    world.batch = SimpleNamespace(pk=BATCH)
    # Off, and two of them, so that the request in the world waits as without any and one can be moved.
    world.policy, _last = (
        policies.add_policy(actor=chief, rule=Rule(name=name, enabled=False)) for name in ("first", "last")
    )
    now = timezone.now()
    world.delegation = Delegation.objects.create(
        person=world.people["approver"],
        deputy=world.people["auditor"],
        starts_at=now + timedelta(days=1),
        ends_at=now + timedelta(days=2),
    )
    world.invited = accounts.invite(
        actor=chief, project=world.project, role=Role.REQUESTER, link_for=lambda token: token
    )
    quotas.set_quota(actor=chief, scope=scopes.of_project(world.project), limits={"machines": 50})
    world.invitation = world.invited.invitation
    notices.notify(people=[owner], kind="request.decided", text="Approved", link="/requests/")
    world.notice = notices.of(owner).get()
    world.template = InstallTemplate.objects.create(name="One", format="preseed", text="d-i $hostname")
    world.ssh_key = public_keys.add(actor=owner, name="laptop", line=factories.HOST_KEY)


def make_export(world):
    """A machine's file, as if an export had made it."""
    made = make_operation(world, "exported", state="succeeded")
    Operation.objects.filter(pk=made.pk).update(subject=world.machine.topic)
    folder = str(uuid.uuid4())
    (FOLDER / folder).mkdir(parents=True)
    (FOLDER / folder / "machine.ova").write_bytes(b"a file")
    return Export.objects.create(
        machine_name="machine",
        project=world.project,
        owner=world.owner,
        operation=made,
        path=f"{folder}/machine.ova",
        size=6,
        sha256="0" * 64,
        expires_at=timezone.now() + timedelta(days=7),
    )


def make_operation(world, name, *, state):
    """An operation of the owner's that builds a machine and has come to `state`."""
    made = request_operation(
        actor=world.people["owner"],
        project=world.project,
        spec=RequestSpec(kind="vm.create", sizes={"vcpu": 1}, pinned={"name": name}),
        amounts={},
        token=uuid.uuid4(),
        title=f"Create {name}",
    )
    Operation.objects.filter(pk=made.pk).update(state=state)
    return made


def make_machine(world, name, place, **changes):
    """A machine of the owner's, switched off, on the host of its pool."""
    built_by = make_operation(world, name, state="succeeded")
    values = {
        "status": Status.ACTIVE,
        "observed_state": Observed.SHUTOFF,
        "lease_until": timezone.now() + timedelta(days=30),
        "login_user": "root",
        "item_name": "Tiny",
    }
    machine = VirtualMachine.objects.create(
        name=name,
        uuid=uuid.uuid4(),
        project=world.project,
        owner=world.people["owner"],
        host=place.host,
        built_by=built_by,
        image=world.item.image,
        vcpus=1,
        memory=128 * factories.MIB,
        **values | changes,
    )
    Operation.objects.filter(pk=built_by.pk).update(subject=machine.topic)
    machine.disks.create(pool=place, volume_name=f"{name}-{secrets.token_hex(4)}", capacity=factories.GIB)
    return machine


def _with_devices(world):
    """A machine that has a USB device of its host, which has another one."""
    stick = {"key": "usb:058f:6387", "label": "Stick", "address": "1.4", "group": None}
    host = factories.make_host("devices", "fake://devices/", readiness={"devices": [stick]})
    machine = make_machine(world, "with-mouse", factories.make_place(host, "devices-pool", "/devices"))
    mouse = {"mode": "subsystem", "type": "usb", "usb": {"vendor": "0x046d", "product": "0xc52b"}}
    Definition.objects.create(
        host=host,
        uuid=machine.uuid,
        observed_digest="d",
        observed_persistent={"devices": {"host_devices": [mouse]}},
        observed_at=timezone.now(),
    )
    return machine


def _waiting(world):
    """A machine that runs, whose clock is another from its next start on."""
    host = factories.make_host("waiting", "fake://waiting/")
    place = factories.make_place(host, "waiting-pool", "/waiting")
    machine = make_machine(world, "waiting", place, observed_state=Observed.RUNNING)
    Definition.objects.create(
        host=host,
        uuid=machine.uuid,
        observed_digest="d",
        observed_persistent={"clock": {"offset": "localtime"}},
        observed_running={"clock": {"offset": "utc"}},
        observed_at=timezone.now(),
    )
    return machine
