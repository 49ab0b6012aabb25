"""A further host with two domains, the portal's rows of them, and whether both are of one mind.

For tests whose libvirtd dies. Not for: what is done to the domains.
"""

import os
import re
import socket
import threading
import time
import uuid
from collections import Counter as Lines
from contextlib import contextmanager, suppress
from types import SimpleNamespace

import pytest
from django.utils import timezone

from networks.models import Network, Port
from portal.drivers.inspection import Kind, inspect
from portal.drivers.registry import driver_for
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
from portal.operations.states import UNFINISHED, State
from tests.dying import Workers
from tests.factories import GIB, MIB, make_host, make_image
from tests.vms import killed_libvirt
from tests.vms.real import IMAGES
from tests.vms.test_changes_live import see
from vms.adoption import services as adoption
from vms.models import Definition, Disk, Export, VirtualMachine

ROOT = "/var/lib/libvirt/images"
NETWORK = uuid.uuid4()
MAC = "52:54:00:fe:0d:01"


# The host


@pytest.fixture(scope="module")
def kills(lab, tmp_path_factory):
    """A further host, and a folder where it is ordered when its libvirtd dies."""
    host, folder = lab.host(), tmp_path_factory.mktemp("kills")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "killer"))
    listener.listen()
    threading.Thread(target=_serve, args=(host, listener), daemon=True).start()
    os.environ[killed_libvirt.KILLS] = str(folder)
    yield SimpleNamespace(uri=host.local_uri, folder=folder, host=host)
    del os.environ[killed_libvirt.KILLS]
    listener.close()
    host.power_cut()


def _serve(host, listener):
    """Kill libvirtd and start it again for whoever connects, who reads the end once it answers."""
    with suppress(OSError):
        while True:
            asking, _address = listener.accept()
            with asking:
                host.kill_libvirtd()
                host.start_libvirtd()


@pytest.fixture(scope="module")
def worker(kills, django_db_setup):
    """Run a worker to its end; return its exit status."""
    workers = Workers(killed_libvirt.__name__)
    yield workers
    workers.close()


@contextmanager
def opened(uri):
    """A driver of the libvirtd that is there now."""
    driver = driver_for(uri)
    yield driver
    driver.close()


@pytest.fixture(scope="module")
def stage(kills):
    """Two pools, and two domains that others defined: `on` runs and its agent answers, `off` never ran."""
    pools = tuple(PoolSpec(f"gttest-{name}", str(uuid.uuid4()), f"{ROOT}/gttest-{name}") for name in "ab")
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
        network = Network(**NETWORK_VALUES).spec
        driver.ensure_network(network)
        shared = {"vcpus": 1, "memory_bytes": 128 * MIB, "accelerator": Accelerator.EMULATION}
        driver.define(
            DomainSpec("gttest-on", str(found.on), **shared, disks=(DiskSpec(made.path),), vcpu_ceiling=16,
                       nics=(NicSpec(MAC, network.name),), seed_path=seeds[0].path)
        )
        driver.define(DomainSpec("gttest-off", str(found.off), **shared, disks=(DiskSpec(other.path),)))
        driver.start(str(found.on))
        end = time.monotonic() + 90
        while not driver.guest_agent_ping(str(found.on)):
            assert time.monotonic() < end, "no agent answers"
            time.sleep(0.3)
    return found


NETWORK_VALUES = {
    "name": "example79",
    "title": "Example 79",
    "bridge": "gttbr79",
    "address": "10.213.79.1",
    "dhcp_start": "10.213.79.10",
    "dhcp_end": "10.213.79.200",
    "uuid": NETWORK,
}


def number(uri, domain):
    """Return libvirt's number of a domain that runs, which is another one at its next start."""
    with opened(uri) as driver:
        return _number(driver.definition(domain).running)


def _number(text):
    return re.search(r"<domain [^>]*id='(\d+)'", text).group(1)


# The machine


class There:
    """The portal's rows of the stage for one test, and what it asks of them."""

    def __init__(self, stage, worker, cast, chief):
        self.stage, self.worker, self.cast, self.chief = stage, worker, cast, chief
        self.host = make_host(uri=stage.uri)
        self.places = []
        for spec in stage.pools:
            pool = StoragePool.objects.create(name=spec.name, uuid=spec.uuid)
            self.places.append(PoolAttachment.objects.create(
                host=self.host, pool=pool, path=spec.path, observed_available=9 * GIB
            ))
        self.network = Network.objects.create(**NETWORK_VALUES)
        Counter.objects.create(scope=self.host.scope, resource="memory", limit=GIB)
        self.image = make_image(kind=Image.Kind.ISO, name="other", title="Other", every_project=True)
        ImageAttachment.objects.create(image=self.image, pool=self.places[0], path=stage.iso)
        self.machine, self.domain, self.number = None, "", ""

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

    def carry_out(self, act, when="before", number=0, *, reads=False):
        """Begin what `act` returns and carry it out, libvirtd dying then; return how it ended."""
        self.see()
        killed_libvirt.order(self.stage.folder, when, number, reads=reads)
        begun = act(self)
        if begun is None:
            return SimpleNamespace(state=State.SUCCEEDED)
        assert self.worker(begun.pk) == 0
        return Operation.objects.get(pk=begun.pk)


def state(there):
    """Return what the portal knows and what is on the host, but for what each time is another."""
    taken = {(row.scope, row.resource): (row.held, row.used) for row in Counter.objects.all()}
    with opened(there.stage.uri) as driver:
        texts = driver.definition(there.domain)
        files = [(place.pk, one.name, one.capacity_bytes, one.backing_path)
                 for place in there.places for one in driver.list_volumes(place.pool.name)]
        domains = [(info.name, info.state) for info in driver.list_domains()]
    rows = [list(model.objects.values_list(*names)) for model, names in ROWS]
    return {
        "taken": [(key, value) for key, value in taken.items() if any(value)],
        "persistent": plain(texts.persistent),
        "running": plain(texts.running),
        "files": plain("\n".join(map(str, files))),
        "domains": plain("\n".join(map(str, domains))),
        "rows": plain("\n".join(map(str, rows))),
    }


ROWS = (
    (VirtualMachine, ("name", "status", "vcpus", "memory", "balloon")),
    (Disk, ("machine__name", "target", "volume_name", "capacity", "pool")),
    (Port, ("mac",)),
    (Image, ("title", "deprecated_reason")),
    (Export, ("machine_name", "path")),
)
#: What differs each time: numbers of operations, what was drawn, and the places that libvirt chose.
PASSING = re.compile(
    r"-vd[b-z]-\d+|gatehouse-\d+|-[0-9a-f]{8,12}(?=[.\W])|52:54:00:(?!fe)[0-9a-f:]{8}| index='\d+'|vnet\d+"
    r"|[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-f]{32}| id='\d+'|domain-\d+-"
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


def differences(before, after):
    """Return what went from each part of a state, and what came."""
    found = []
    for part, was in before.items():
        old, new = Lines(map(str, was)), Lines(map(str, after[part]))
        if old != new:
            found.append((part, list((old - new).elements()), list((new - old).elements())))
    return found


def agree(there):
    """Look that the portal's rows, both definitions and the files in the pools are of one mind."""
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
            cards = [card["mac"] for card in sides.get("interfaces", ())]
            assert cards == list(Port.objects.filter(domain_uuid=machine.uuid).values_list("mac", flat=True))
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


