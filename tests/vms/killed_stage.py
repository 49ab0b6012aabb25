"""A further host with two domains, the portal's rows of them, and whether both are of one mind.

For tests whose libvirtd dies. Not for: what is done to the domains.
"""

import re
import uuid
from dataclasses import asdict
from types import SimpleNamespace

import pytest
from django.utils import timezone

from networks.models import Network, Port
from portal.drivers.inspection import Kind, inspect
from portal.drivers.types import (
    Accelerator,
    DiskSpec,
    DomainSpec,
    NicSpec,
    PoolSpec,
    SeedSpec,
    VolumeSpec,
)
from portal.hosts.models import Image, ImageAttachment, PoolAttachment, StoragePool, Volume
from portal.hosts.storage.looking import note_volumes
from portal.operations.models import Counter, Operation
from portal.operations.states import UNFINISHED
from tests.factories import GIB, MIB, make_host, make_image
from tests.killed_turns import ROOT, Scene, opened
from tests.shaping import let_shape
from tests.vms.real import IMAGES, await_agent
from tests.vms.test_changes_live import see
from vms.adoption import services as adoption
from vms.models import Definition, Disk, Export, VirtualMachine

MAC = "52:54:00:fe:0d:01"


# The host


@pytest.fixture(scope="module")
def stage(kills):
    """Two pools, and two domains that others defined: `on` runs and its agent answers, `off` never ran."""
    pools = tuple(PoolSpec(f"gttest-{name}", str(uuid.uuid4()), f"{ROOT}/gttest-{name}") for name in "ab")
    let_shape(kills.host)
    found = SimpleNamespace(pools=pools, on=uuid.uuid4(), off=uuid.uuid4(), **vars(kills))
    with opened(kills.uri) as driver:
        for pool in pools:
            driver.ensure_pool(pool)
        first = pools[0].name
        tiny = driver.upload_image(first, "tiny.qcow2", str(IMAGES / "tiny.qcow2"))
        seeds = [driver.write_seed(SeedSpec(first, f"{name}.iso", "{}", "#cloud-config")) for name in "xy"]
        found.kept = {tiny.path, *(seed.path for seed in seeds)}
        found.iso = seeds[1].path
        made = driver.create_volume(VolumeSpec(first, "on.qcow2", 256 * MIB, tiny.path))
        other = driver.create_volume(VolumeSpec(first, "off.qcow2", 256 * MIB, tiny.path))
        found.readiness = asdict(driver.readiness())
        network = Network(**network_values(79)).spec
        driver.ensure_network(network)
        shared = {"vcpus": 1, "memory_bytes": 128 * MIB, "accelerator": Accelerator.EMULATION}
        driver.define(
            DomainSpec("gttest-on", str(found.on), **shared, disks=(DiskSpec(made.path),), vcpu_ceiling=16,
                       nics=(NicSpec(MAC, network.name),), seed_path=seeds[0].path)
        )
        driver.define(DomainSpec("gttest-off", str(found.off), **shared, disks=(DiskSpec(other.path),)))
        driver.start(str(found.on))
        await_agent(driver, found.on)
    return found


def network_values(number):
    """Return a network that is the same one in every test."""
    return {
        "name": f"example{number}",
        "title": f"Example {number}",
        "bridge": f"gttbr{number}",
        "address": f"10.213.{number}.1",
        "dhcp_start": f"10.213.{number}.10",
        "dhcp_end": f"10.213.{number}.200",
        "uuid": uuid.uuid5(uuid.NAMESPACE_DNS, f"example{number}.invalid"),
    }


def number(uri, domain):
    """Return libvirt's number of a domain that runs, which is another one at its next start."""
    with opened(uri) as driver:
        return _number(driver.definition(domain).running)


def _number(text):
    return re.search(r"<domain [^>]*id='(\d+)'", text).group(1)


# The machine


class There(Scene):
    """The portal's rows of the stage for one test, and what it asks of them."""

    def __init__(self, stage, worker, cast, chief):
        super().__init__(stage, worker)
        self.cast, self.chief = cast, chief
        self.host = make_host(uri=stage.uri, readiness=stage.readiness)
        self.places = []
        for spec in stage.pools:
            pool = StoragePool.objects.create(name=spec.name, uuid=spec.uuid)
            self.places.append(PoolAttachment.objects.create(
                host=self.host, pool=pool, path=spec.path, observed_available=9 * GIB
            ))
        self.network = Network.objects.create(**network_values(79))
        Counter.objects.create(scope=self.host.scope, resource="memory", limit=GIB)
        self.image = make_image(kind=Image.Kind.ISO, name="other", title="Other", every_project=True)
        ImageAttachment.objects.create(image=self.image, pool=self.places[0], path=stage.iso)
        self.machine, self.domain, self.number = None, "", ""

    @property
    def away(self):
        """Another network, which the host does not have at first."""
        values = network_values(80)
        return Network.objects.get_or_create(uuid=values["uuid"], defaults=values)[0]

    def adopt(self, domain):
        """Return the operation that adopts a domain of the stage."""
        with opened(self.stage.uri) as driver:
            see((driver,), SimpleNamespace(host_id=self.host.pk, uuid=domain, refresh_from_db=lambda: None))
        begun = adoption.adopt_machine(
            actor=self.chief, definition=Definition.objects.get(uuid=domain), project=self.cast.project,
            owner=self.cast.requester, name="example", lease_days=3,
        )
        self.machine = VirtualMachine.objects.get()
        return begun

    def doing(self, **more):
        return {"actor": self.cast.requester, "machine": self.machine} | more

    def see(self):
        """Let the portal see what is on the host."""
        with opened(self.stage.uri) as driver:
            for machine in VirtualMachine.objects.all():
                see((driver,), machine)
                state = driver.domain_info(str(machine.uuid)).state.value
                VirtualMachine.objects.filter(pk=machine.pk).update(observed_state=state)
            for place in self.places:
                note_volumes(place.pk, driver.list_volumes(place.pool.name), timezone.now())
        if self.machine is not None:
            self.machine.refresh_from_db()

    def state(self):
        """Return what the portal knows and what is on the host, but for what each time is another."""
        return state(self)

    def agree(self):
        """Look that the portal's rows, both definitions and the files in the pools are of one mind."""
        agree(self)


def state(there):
    taken = {(row.scope, row.resource): (row.held, row.used) for row in Counter.objects.all()}
    with opened(there.stage.uri) as driver:
        texts = driver.definition(there.domain)
        files = [(place.pk, one.name, one.capacity_bytes, one.backing_path)
                 for place in there.places for one in driver.list_volumes(place.pool.name)]
        networks = [(one.name, one.active) for one in driver.list_networks()]
        domains = [(info.name, info.state) for info in driver.list_domains()]
    rows = [list(model.objects.values_list(*names)) for model, names in ROWS]
    return {
        "taken": [(key, value) for key, value in taken.items() if any(value)],
        "persistent": plain(texts.persistent),
        "running": plain(texts.running),
        "autostart": [texts.autostart],
        "files": plain("\n".join(map(str, files))),
        "networks": networks,
        "domains": plain("\n".join(map(str, domains))),
        "rows": plain("\n".join(map(str, rows))),
    }


ROWS = (
    (VirtualMachine, ("name", "status", "vcpus", "memory", "balloon", "binned_autostart")),
    (Disk, ("machine__name", "target", "volume_name", "capacity", "pool")),
    (Port, ("mac", "network__name", "joining")),
    (Image, ("title", "deprecated_reason")),
    (Export, ("machine_name", "path")),
)
#: What differs each time: numbers of operations, what was drawn, and the places that libvirt chose.
PASSING = re.compile(
    r"-vd[b-z]-\d+|gatehouse-\d+|-[0-9a-f]{8,12}(?=[.\W])|52:54:00:(?!fe)[0-9a-f:]{8}| index='\d+'|vnet\d+"
    r"|/dev/pts/\d+|[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-f]{32}| id='\d+'|domain-\d+-"
)
PLACES = ("<source-/>", "<address type=", "<alias ")
PLACES += ("<controller", "</controller", "<target chassis", "<model name")


def plain(text):
    """Return the lines of a text without what differs each time, sorted."""
    if ".iso'" not in text:
        # A tray that was opened to be emptied may stand open: the next medium shuts it.
        text = text.replace(" tray='open'", "")
    # libvirt forgets what an empty drive's medium was like when it starts.
    lines = (PASSING.sub("-", line.strip()) for line in text.replace(" type='raw'", "").splitlines())
    return sorted(line for line in lines if not line.startswith(PLACES))


def agree(there):
    assert not Operation.objects.filter(state__in=UNFINISHED).exists()
    machine = VirtualMachine.objects.filter(uuid=there.domain).first()
    if machine is None:
        return
    with opened(there.stage.uri) as driver:
        texts = driver.definition(there.domain)
        for text in filter(None, (texts.persistent, texts.running)):
            found = inspect(Kind.DOMAIN, text.encode()).understood
            sides = found["devices"]
            own = [disk for disk in sides["disks"] if disk.get("device") != "cdrom"]
            files = {disk["target"]["dev"]: disk["source"]["file"] for disk in own}
            assert files == {disk.target: disk.path for disk in machine.disks.select_related("pool")}
            cards = [(card["mac"], card["source"]["network"]) for card in sides.get("interfaces", ())]
            ports = Port.objects.filter(domain_uuid=machine.uuid).select_related("network")
            assert cards == [(port.mac, port.network.spec.name) for port in ports]
            # What is emulated gets no processor while it runs.
            assert text is texts.running or found.get("current_vcpus", found["vcpus"]) == machine.vcpus
            assert found["memory_bytes"] == machine.memory
            assert found.get("current_memory_bytes", found["memory_bytes"]) == machine.memory_now
        assert not (there.number and texts.running) or _number(texts.running) == there.number
        both = [driver.definition(str(domain)).persistent for domain in (there.stage.on, there.stage.off)]
        there_are = {v.path: v.capacity_bytes for p in there.places for v in driver.list_volumes(p.pool.name)}
    for disk in Disk.objects.select_related("pool"):
        assert there_are.pop(disk.path) == disk.capacity
    for image in ImageAttachment.objects.all():
        assert there_are.pop(image.path)
    kept = {*there.stage.kept, *re.findall("<source file='([^']+)'", "".join(both))}
    kept |= set(Volume.objects.filter(made=True).values_list("observed_path", flat=True))
    assert set(there_are) - kept == set()


