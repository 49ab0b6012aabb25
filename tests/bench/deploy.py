"""Row `deploy.ratio`: 30 machines asked for at once, beside a loop that was written by hand.

The portal's time begins with the approver's POST and ends when each of the 30 has succeeded, which the
portal says once it knows the machine's address. By hand one process with one open connection makes one
after the other by the shortest code there is, and then waits until the network has given each its address.
Under emulation nearly all of both is the guests' own start. The machines are removed between the two; which
comes first is drawn by lot.
"""

import random
import time
from collections.abc import Iterator

import libvirt

from portal.operations.models import Operation
from portal.operations.states import FINAL, State
from tests.bench import build
from tests.bench.measure import Row
from tests.bench.portal import Person, Portal, started
from vms.models import VirtualMachine
from vms.services import DEPLOY

COUNT, LIMIT = 30, 1.15
PATIENCE = 400.0  # seconds
LOOK_EVERY = 0.25


def measure() -> Iterator[Row]:
    """Yield the ratio. Red when a host's lane takes one operation at a time (GATEHOUSE_LANE is 1)."""
    with started() as portal:
        sides = [_by_portal, _by_hand]
        random.shuffle(sides)
        took = {side: side(portal) for side in sides}
    ours, by_hand = took[_by_portal], took[_by_hand]
    note = f"{COUNT} machines; {ours:.0f} s, by hand {by_hand:.0f} s"
    yield Row("deploy.ratio", ours / by_hand, "x", LIMIT, note)


def _by_portal(portal: Portal) -> float:
    """Return the seconds until the portal says that all of them run, and take them away."""
    build.lift_quotas()
    approver = Person(portal, "approver")
    operation = build.ask(count=COUNT)
    if operation.kind != DEPLOY:
        raise RuntimeError(f"{operation} is no request for several")
    pressed = build.approve(approver, operation)
    parts = Operation.objects.filter(batch=operation.token).exclude(pk=operation.pk)
    end = time.monotonic() + PATIENCE
    while parts.filter(state__in=FINAL).count() < COUNT:
        if time.monotonic() > end:
            raise TimeoutError(f"only {parts.filter(state__in=FINAL).count()} are over")
        time.sleep(LOOK_EVERY)
    took = time.perf_counter() - pressed
    if bad := parts.exclude(state=State.SUCCEEDED).count():
        raise RuntimeError(f"{bad} did not succeed")
    connection = libvirt.open(build.URI)
    for machine in VirtualMachine.objects.filter(built_by__in=parts):
        connection.lookupByUUIDString(str(machine.uuid)).destroy()
    connection.close()
    return took


def _by_hand(_portal: Portal) -> float:
    """Return the seconds until each of them has an address, and take them away."""
    connection, made, macs = libvirt.open(build.URI), [], set()
    contexts = [build.context_of() for _ in range(COUNT)]
    network = connection.networkLookupByName(contexts[0].spec["pinned"]["network"]["name"])
    began = time.perf_counter()
    for context in contexts:
        made.append(build.make(connection, context))
        macs.add(context.identifiers["mac"])
    end = time.monotonic() + PATIENCE
    while missing := macs - {lease["mac"] for lease in network.DHCPLeases()}:
        if time.monotonic() > end:
            raise TimeoutError(f"{len(missing)} have no address")
        time.sleep(LOOK_EVERY)
    took = time.perf_counter() - began
    for domain, volumes in made:
        build.take_away(domain, volumes)
    connection.close()
    return took
