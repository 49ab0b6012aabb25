"""Rows `build.*`: from the approval to a machine that runs, beside the same steps by hand through libvirt.

Running means: libvirt says on this process's own connection that the domain has started. It is where the
portal's work ends and the guest's own begins, and it is the same on both sides; an address would add seconds
of a guest's boot under emulation to both, which hide what the portal costs.

The portal's time begins with the approver's POST. By hand is one process with one open connection and the
shortest code that does the same: the network (looked up, as the portal finds it), the linked clone, the seed,
the definition, the start. Which of a pair comes first is drawn by lot.
"""

import io
import random
import re
import secrets
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from html import unescape
from typing import Any

import libvirt
from django.urls import reverse

from portal.accounts.models import User
from portal.drivers.libvirt.connection import open_connection
from portal.drivers.libvirt.xml.domain import DomainElement
from portal.drivers.libvirt.xml.volume import VolumeElement
from portal.drivers.seed import build_iso
from portal.drivers.types import SeedSpec
from portal.operations.models import Counter, DefaultLimit, Operation
from portal.operations.registry import StepContext
from portal.operations.states import FINAL
from tests.bench.measure import Row, median
from tests.bench.portal import Person, Portal, started
from vms import specs
from vms.models import CatalogueItem
from vms.services import Wish, request_machine

URI = "qemu:///system"
PAIRS, WARM = 20, 2
RATIO, SHARE = 1.15, 400.0
PATIENCE = 60.0  # seconds
LOOK_EVERY = 0.02  # seconds


class Starts:
    """When domains started, by the beginning of their name, as libvirt tells this process."""

    def __init__(self) -> None:
        self.connection = open_connection(URI)
        self._told = threading.Condition()
        self._at: dict[str, float] = {}
        self.connection.domainEventRegisterAny(
            None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._changed, None
        )

    def _changed(self, _connection: object, domain: libvirt.virDomain, event: int, *_rest: object) -> None:
        if event == libvirt.VIR_DOMAIN_EVENT_STARTED:
            with self._told:
                self._at[domain.name()] = time.perf_counter()
                self._told.notify_all()

    def wait(self, prefix: str) -> float:
        """Return when the domain of that prefix started. Raises TimeoutError."""

        def found() -> list[float]:
            return [at for name, at in self._at.items() if name.startswith(prefix)]

        with self._told:
            if not self._told.wait_for(found, PATIENCE):
                raise TimeoutError(f"{prefix} did not start within {PATIENCE:g} s")
            return found()[0]


def measure() -> Iterator[Row]:
    """Yield the ratio and the portal's own share.

    Red when a worker's driver calls start a child each (HostPool keeps none idle), or when dispatch() leaves
    the sending to the sweep.
    """
    with started() as portal:
        pairs = _pairs(portal)
    ours, by_hand = (median([pair[side] for pair in pairs]) for side in (0, 1))
    note = f"median of {PAIRS} ratios; medians {ours:.0f} ms, by hand {by_hand:.0f} ms"
    # Of each pair, as the share is: the machine's pace drifts meanwhile, and least within a pair.
    yield Row("build.ratio", median([ours / by_hand for ours, by_hand in pairs]), "x", RATIO, note)
    own = median([portal_time - hand_time for portal_time, hand_time in pairs])
    yield Row("build.own_share", own, "ms", SHARE, f"median of {PAIRS} differences")


def _pairs(portal: Portal) -> list[tuple[float, float]]:
    """Return the milliseconds of each pair: by the portal, by hand."""
    starts, approver = Starts(), Person(portal, "approver")
    pairs = []
    for number in range(WARM + PAIRS):
        pair, sides = {}, [_by_portal, _by_hand]
        # The first machine of all makes the network.
        if number >= WARM:
            random.shuffle(sides)
        for side in sides:
            pair[side] = side(starts, approver)
        pairs.append((pair[_by_portal], pair[_by_hand]))
    return pairs[WARM:]


def ask(**more: Any) -> Operation:
    """Have the requester ask for the tiny machine; `more` goes to the wish."""
    item = CatalogueItem.objects.get(image__name="tiny")
    wish = Wish(
        item=item,
        flavour=item.flavours.order_by("memory").first(),
        network=item.networks.get(),
        name=f"gttest-{secrets.token_hex(4)}",
        lease_days=1,
        why="to measure it",
        user="root",
        **more,
    )
    requester = User.objects.get(username="requester")
    project = requester.memberships.get().project
    return request_machine(actor=requester, project=project, wish=wish, token=uuid.uuid4())


def lift_quotas() -> None:
    """Let a measurement make as many machines as it wants; what a pool has is not changed."""
    DefaultLimit.objects.update(limit=None)
    Counter.objects.exclude(scope__startswith="pool:").update(limit=None)


def approve(approver: Person, operation: Operation) -> float:
    """Approve what the request's page shows; return the monotonic time at which the button was pressed."""
    page = approver.get(reverse("operations:detail", args=[operation.pk]))
    address = reverse("operations:decide", args=[operation.pk])
    form = re.search(rf'<form[^>]*action="{address}".*?</form>', page, re.S)
    if form is None:
        raise RuntimeError("the request's page has no form to decide")
    hidden = re.findall(r'type="hidden" name="([^"]+)" value="([^"]*)"', form[0])
    fields = {name: unescape(value) for name, value in hidden} | {"decision": "approve"}
    pressed = time.perf_counter()
    status, _page = approver.post(address, fields)
    if status != 302:
        raise RuntimeError(f"the approval was answered by {status}")
    return pressed


def follow(operation: Operation, seconds: float = PATIENCE) -> None:
    """Wait for the operation's end, `seconds` at most."""
    end = time.monotonic() + seconds
    while operation.state not in FINAL and time.monotonic() < end:
        time.sleep(LOOK_EVERY)
        operation.refresh_from_db()


def _by_portal(starts: Starts, approver: Person) -> float:
    """Return the milliseconds from the approval to the running machine, and take the machine away again."""
    operation = ask()
    pressed = approve(approver, operation)
    took = starts.wait(operation.frozen["pinned"]["name"]) - pressed
    operation.refresh_from_db()
    # A guest that is gone fails the step that waits for its address, and everything is undone.
    starts.connection.lookupByUUIDString(operation.identifiers["uuid"]).destroy()
    follow(operation)
    return took * 1000


def _by_hand(starts: Starts, _approver: Person) -> float:
    """Return the milliseconds of the same steps in this process, and take the machine away again."""
    context, connection = context_of(), starts.connection
    began = time.perf_counter()
    domain, volumes = make(connection, context)
    took = starts.wait(context.identifiers["domain"]) - began
    take_away(domain, volumes)
    return took * 1000


def make(
    connection: libvirt.virConnect, context: StepContext
) -> tuple[libvirt.virDomain, list[libvirt.virStorageVol]]:
    """Build and start a machine by the shortest code there is; return it and its volumes."""
    names, seed = context.identifiers, specs.seed_spec(context)
    connection.networkLookupByName(context.spec["pinned"]["network"]["name"]).isActive()
    pool = connection.storagePoolLookupByName(names["pool"])
    disk = pool.createXML(VolumeElement.to_xml(specs.volume_specs(context)[0]))
    iso = write_seed(connection, pool, seed)
    domain = connection.defineXML(DomainElement.to_xml(specs.domain_spec(context)))
    domain.create()
    return domain, [disk, iso]


def write_seed(
    connection: libvirt.virConnect, pool: libvirt.virStoragePool, seed: SeedSpec
) -> libvirt.virStorageVol:
    """Write a seed by libvirt's own sender; return its volume."""
    iso = build_iso(seed)
    volume = pool.createXML(VolumeElement.raw_xml(seed.name, len(iso)))
    stream = connection.newStream()
    volume.upload(stream, 0, len(iso))
    stream.sendAll(lambda _stream, size, left: left.read(size), io.BytesIO(iso))
    stream.finish()
    return volume


def take_away(domain: libvirt.virDomain, volumes: Sequence[libvirt.virStorageVol]) -> None:
    """Remove a machine that was made by hand."""
    if domain.isActive():
        domain.destroy()
    domain.undefine()
    for volume in volumes:
        volume.delete()


def context_of() -> StepContext:
    """Return what the portal's steps would know of a machine like those it builds."""
    from portal.hosts.models import ImageAttachment
    from vms.placement import mac

    item = CatalogueItem.objects.get(image__name="tiny")
    last = Operation.objects.filter(kind="vm.create").order_by("-pk").first() or ask()
    spec = last.frozen
    place = ImageAttachment.objects.select_related("pool__pool", "pool__host").get(image=item.image)
    uid = str(uuid.uuid4())
    name = f"gttest-{secrets.token_hex(4)}-{uid[:8]}"
    path = place.pool.path
    names = {
        "uuid": uid,
        "domain": name,
        "mac": mac(),
        "pool": place.pool.pool.name,
        "volume": f"{name}-vda.qcow2",
        "volume_path": f"{path}/{name}-vda.qcow2",
        "seed": f"{name}-seed.iso",
        "seed_path": f"{path}/{name}-seed.iso",
        "image_path": place.path,
        "accelerator": place.pool.host.accelerator,
    }
    return StepContext(spec=spec, identifiers=names, check=lambda: None)
