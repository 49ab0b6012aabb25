"""Rows `copies.*`: a machine is cloned and a disk of one that runs is moved, beside the same by hand.

Each disk has 4 GiB of its own beside its image, as a machine has that was used for a while: what the portal
adds, a quarter of a second at most, does not grow with the disk. Its time begins with the POST (the
approver's, the operator's) and ends when the operation has succeeded, with nothing left to do. By hand is
one process with one open connection and the shortest code that does the same: for a clone the full copy,
the seed and the definition; for a move the new volume, the block copy, the change over, the definition and
the old volume's end. A move's two sides have a machine each, and move to and fro between two pools of one
disk. What is copied second takes longer, as the disk still has the first to write: each side comes first in
every other pair, and all pairs are added up.
"""

import re
import secrets
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import libvirt
from django.urls import reverse

from portal.accounts.models import User
from portal.drivers.libvirt.xml.twin import twin_of
from portal.drivers.libvirt.xml.volume import VolumeElement
from portal.drivers.registry import driver_for
from portal.drivers.types import CloneMode, PoolSpec, SeedSpec, TwinSpec, VolumeSpec
from portal.hosts.models import PoolAttachment, StoragePool
from portal.operations.models import Operation
from portal.operations.states import State
from tests.bench import build
from tests.bench.measure import Row
from tests.bench.portal import Person, Portal, remove_pool, started
from vms import placement, specs
from vms.changes.cloning import request_clone
from vms.models import CatalogueItem, Observed, VirtualMachine

PAIRS, WARM, LIMIT = 6, 1, 1.1
LONGEST = 180.0  # seconds
OWN_BYTES, OWN_FROM = 4 << 30, 200 << 20
MAC = re.compile("<mac address='([^']+)'")
COPY = libvirt.VIR_DOMAIN_BLOCK_COPY_REUSE_EXT | libvirt.VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB
GIB = 1 << 30
Side = Callable[[], float]


def measure() -> Iterator[Row]:
    """Yield both ratios.

    `copies.clone`: red when the copy is made twice, as by a digest that reads it all. `copies.move`: red when
    LOOK_SOON of vms.changes.moving is 1.
    """
    with started() as portal, second_pool() as other:
        build.lift_quotas()
        machine = machine_with_data(portal)
        yield _row("copies.clone", _pairs(*_clones(portal, machine)))
        yield _row("copies.move", _pairs(*_moves(portal, machine, other)))


def _row(name: str, pairs: list[tuple[float, float]]) -> Row:
    ours, by_hand = (sum(pair[side] for pair in pairs) / len(pairs) for side in (0, 1))
    note = f"of the sums of {len(pairs)} pairs; means {ours:.2f} s, by hand {by_hand:.2f} s"
    return Row(name, ours / by_hand, "x", LIMIT, note)


def _pairs(by_portal: Side, by_hand: Side) -> list[tuple[float, float]]:
    """Return the seconds of each pair: by the portal, by hand."""
    pairs = []
    for number in range(WARM + PAIRS):
        pair, sides = {}, [by_portal, by_hand]
        for side in sides if number % 2 else reversed(sides):
            # What the one before left to be written is not this one's.
            subprocess.run(["sync"], check=True)
            pair[side] = side()
        pairs.append((pair[by_portal], pair[by_hand]))
    return pairs[WARM:]


def ended(operation: Operation) -> float:
    """Wait until an operation has succeeded; return the monotonic time. Raises RuntimeError."""
    build.follow(operation, LONGEST)
    at = time.perf_counter()
    if operation.state != State.SUCCEEDED:
        raise RuntimeError(f"{operation} is {operation.state}")
    return at


def write_data(path: str) -> None:
    """Let a disk that nobody uses have data of its own, beyond what the image has."""
    commands: list[str] = []
    # It takes less than 2 GiB at once.
    for begin in range(0, OWN_BYTES, GIB):
        commands += ["-c", f"write -P 165 {OWN_FROM + begin} {min(GIB, OWN_BYTES - begin)}"]
    subprocess.run(["qemu-io", "-f", "qcow2", *commands, path], check=True, capture_output=True)


def machine_with_data(portal: Portal) -> VirtualMachine:
    """Have the portal build a machine; return it off, with data."""
    CatalogueItem.objects.filter(image__name="tiny").update(disk_least=GIB, disk_most=8 * GIB)
    operation = build.ask(disk=-(-(OWN_FROM + OWN_BYTES) // GIB) * GIB)
    build.approve(Person(portal, "approver"), operation)
    ended(operation)
    machine = VirtualMachine.objects.select_related("host", "project").get(built_by=operation)
    with _domain(machine) as domain:
        domain.destroy()
    disk = machine.disks.select_related("pool").get()
    write_data(f"{disk.pool.path}/{disk.volume_name}")
    _observed(machine, Observed.SHUTOFF)
    return machine


@contextmanager
def _domain(machine: VirtualMachine) -> Iterator[libvirt.virDomain]:
    connection = libvirt.open(build.URI)
    try:
        yield connection.lookupByUUIDString(str(machine.uuid))
    finally:
        connection.close()


def _observed(machine: VirtualMachine, state: str) -> None:
    end = time.monotonic() + build.PATIENCE
    while VirtualMachine.objects.get(pk=machine.pk).observed_state != state:
        if time.monotonic() > end:
            raise TimeoutError(f"the portal does not see that the machine is {state}")
        time.sleep(0.1)


# A clone


def _clones(portal: Portal, machine: VirtualMachine) -> tuple[Side, Side]:
    approver, requester = Person(portal, "approver"), User.objects.get(username="requester")
    connection = libvirt.open(build.URI)
    source = connection.lookupByUUIDString(str(machine.uuid))
    disk = machine.disks.select_related("pool__pool").get()

    def by_portal() -> float:
        name = f"gttest-{secrets.token_hex(4)}"
        told: dict[str, Any] = {"name": name, "lease_days": 1, "why": "to measure it", "token": uuid.uuid4()}
        operation = request_clone(actor=requester, machine=machine, **told)
        pressed = build.approve(approver, operation)
        took = ended(operation) - pressed
        _forget(Operation.objects.get(pk=operation.pk))
        return took

    def by_hand() -> float:
        own, domain = str(uuid.uuid4()), f"gttest-{secrets.token_hex(4)}"
        old = f"{disk.pool.path}/{disk.volume_name}"
        volume = VolumeSpec(
            disk.pool.pool.name, f"{domain}-vda.qcow2", disk.capacity, old, clone=CloneMode.FULL
        )
        seed = _seed_like(machine, domain, own)
        paths = {old: f"{disk.pool.path}/{volume.name}"}
        began = time.perf_counter()
        pool = connection.storagePoolLookupByName(disk.pool.pool.name)
        made = pool.createXMLFrom(VolumeElement.to_xml(volume), connection.storageVolLookupByPath(old))
        iso = build.write_seed(connection, pool, seed)
        paths[f"{disk.pool.path}/{machine.domain_name}-seed.iso"] = iso.path()
        text = source.XMLDesc()
        macs = {mac: placement.mac() for mac in MAC.findall(text)}
        twin = connection.defineXML(twin_of(text, TwinSpec(domain, own, paths=paths, macs=macs)))
        took = time.perf_counter() - began
        build.take_away(twin, [made, iso])
        return took

    return by_portal, by_hand


def _seed_like(machine: VirtualMachine, domain: str, own: str) -> SeedSpec:
    context = build.context_of()
    context.identifiers.update(domain=domain, uuid=own, seed=f"{domain}-seed.iso")
    return specs.seed_spec(context)


def _forget(operation: Operation) -> None:
    """Take the files of a clone away; its rows are left, as nobody measures them."""
    names = operation.identifiers
    driver = driver_for(build.URI)
    driver.undefine(names["uuid"])
    for disk in names["disks"]:
        driver.delete_volume(disk["pool"], disk["volume"])
    driver.delete_volume(names["pool"], names["seed"])
    driver.close()


# A move


@contextmanager
def second_pool() -> Iterator[PoolSpec]:
    """Make a pool beside the portal's, known to the portal once `attach` was called."""
    name = f"gttest-{secrets.token_hex(4)}"
    spec = PoolSpec(name, str(uuid.uuid4()), f"/var/lib/libvirt/images/{name}")
    driver = driver_for(build.URI)
    driver.ensure_pool(spec)
    driver.close()
    try:
        yield spec
    finally:
        remove_pool(spec.path)


@dataclass
class _ByHand:
    """A machine that was made by hand, and the volume that its disk is now."""

    domain: libvirt.virDomain
    disk: libvirt.virStorageVol


def _moves(portal: Portal, machine: VirtualMachine, spec: PoolSpec) -> tuple[Side, Side]:
    operator, connection = Person(portal, "operator"), build.Starts().connection
    pool = StoragePool.objects.create(name=spec.name)
    there = PoolAttachment.objects.create(
        host=machine.host, pool=pool, path=spec.path, observed_available=1 << 40
    )
    first = machine.disks.select_related("pool__pool").get().pool
    with _domain(machine) as domain:
        domain.create()
    _observed(machine, Observed.RUNNING)
    mine = _make_by_hand(connection)
    names = [first.pool.name, spec.name]

    def by_portal() -> float:
        here = machine.disks.get().pool_id
        to = there if here == first.pk else first
        address = reverse("vms:disk_move", args=[machine.pk, "vda"])
        shown = operator.get(reverse("vms:disk", args=[machine.pk, "vda"]))
        carried = re.search(rf'action="{address}".*?name="seen" value="([^"]+)"', shown, re.DOTALL)
        if carried is None:
            raise RuntimeError(f"the page does not say what it showed: {shown}")
        began = time.perf_counter()
        status, page = operator.post(address, {"pool": str(to.pk), "seen": carried[1]})
        if status != 302:
            raise RuntimeError(f"the move was answered by {status}: {page}")
        operation = Operation.objects.filter(kind="vm.move_disk").latest("pk")
        return ended(operation) - began

    def by_hand() -> float:
        names.reverse()
        began = time.perf_counter()
        _move_by_hand(connection, mine, names[0])
        return time.perf_counter() - began

    return by_portal, by_hand


def _make_by_hand(connection: libvirt.virConnect) -> _ByHand:
    domain, volumes = build.make(connection, build.context_of())
    domain.destroy()
    write_data(volumes[0].path())
    domain.create()
    return _ByHand(domain, volumes[0])


def _move_by_hand(connection: libvirt.virConnect, mine: _ByHand, to: str) -> None:
    pool, old = connection.storagePoolLookupByName(to), mine.disk
    name = f"{mine.domain.name()}-{secrets.token_hex(4)}.qcow2"
    new = pool.createXML(VolumeElement.to_xml(VolumeSpec(to, name, old.info()[1])))
    ready = threading.Event()

    def heard(_connection: object, _domain: object, _disk: str, _kind: int, status: int, _: object) -> None:
        if status == libvirt.VIR_DOMAIN_BLOCK_JOB_READY:
            ready.set()

    heard_of = connection.domainEventRegisterAny(
        mine.domain, libvirt.VIR_DOMAIN_EVENT_ID_BLOCK_JOB_2, heard, None
    )
    destination = f"<disk type='file'><source file='{new.path()}'/><driver type='qcow2'/></disk>"
    mine.domain.blockCopy("vda", destination, {}, COPY)
    if not ready.wait(LONGEST):
        raise TimeoutError("the copy by hand is not ready")
    mine.domain.blockJobAbort("vda", libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)
    connection.domainEventDeregisterAny(heard_of)
    text = mine.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    connection.defineXML(text.replace(old.path(), new.path()))
    old.delete()
    mine.disk = new
