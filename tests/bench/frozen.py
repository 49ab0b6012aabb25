"""Rows `frozen.*`: what a host that froze costs people on a healthy one.

The libvirtd of the crowd is stopped (SIGSTOP) and forty operations are begun on its machines in the same
moment: some are given up while the rest is measured, and twenty at least are stuck until the end. The healthy
host is this machine's libvirt with one real guest. Calm and frozen take turns, so that both see the same
machine; each row is the p95 of what was measured while the other host was frozen over the p95 of what was
measured while it was not.
"""

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator

from django.urls import reverse
from playwright.sync_api import Page
from websockets.sync.client import connect

import portal.celery  # noqa: F401 (services queue work through the current app)
from portal.accounts.models import User
from portal.hosts.models import Health
from portal.operations.models import Operation
from portal.operations.states import FINAL, State
from tests.bench.live import Stage, browser, event_to_dom, stage
from tests.bench.measure import Row, p95
from tests.bench.portal import Person
from vms import power
from vms.models import Observed, VirtualMachine

ROUNDS, WARM = 3, 2
OPERATIONS, CONSOLES, EVENTS = 40, 20, 30
STUCK, BEGUN = 20, 40
LIMIT = 1.2
PATIENCE = 150.0  # seconds
LOOK = 0.004  # seconds between looks at the database


def measure() -> Iterator[Row]:
    """Yield a row each for operations, consoles and events.

    `frozen.operations`: red when drivers.pool.HostPool shares its slots among hosts.
    `frozen.events`: red when drivers.frames.Reader waits for its socket (setblocking(True)).
    """
    calm: dict[str, list[float]] = defaultdict(list)
    frozen: dict[str, list[float]] = defaultdict(list)
    with stage() as on:
        person = Person(on.portal, "requester")
        with browser(on, person) as page:
            _block(on, person, page, defaultdict(list), rounds=WARM)
            for number in range(ROUNDS):
                _block(on, person, page, calm)
                stuck = _freeze(on, number)
                _block(on, person, page, frozen)
                _still_stuck(stuck)
                _thaw(on, stuck)
    for name, before in calm.items():
        note = f"p95 of {len(before)}: {p95(frozen[name]):.0f} ms over {p95(before):.0f} ms"
        yield Row(f"frozen.{name}", p95(frozen[name]) / p95(before), "x", LIMIT, note)


def _block(on: Stage, person: Person, page: Page, times: dict[str, list[float]], rounds: int = 0) -> None:
    """Do everything a number of times, an even one, so that the machine runs in the end."""
    for _ in range(rounds or OPERATIONS):
        times["operations"].append(_operation(on, person))
    for _ in range(rounds or CONSOLES):
        times["consoles"].append(_console(on, person))
    for _ in range(rounds or EVENTS):
        times["events"].append(event_to_dom(on, page))
    _until(lambda: _state(on) == Observed.RUNNING, "the machine to run")


def _state(on: Stage) -> str:
    return VirtualMachine.objects.values_list("observed_state", flat=True).get(pk=on.machine.pk)


def _until(holds: Callable[[], bool], what: str) -> None:
    """Wait until `holds()`. Raises TimeoutError that names `what`."""
    end = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {PATIENCE:g} s for {what}")
        time.sleep(LOOK)


def _operation(on: Stage, person: Person) -> float:
    """Pause or resume the machine by its button; return the milliseconds until the operation succeeded."""
    verb, after = ("suspend", Observed.PAUSED)
    if _state(on) == Observed.PAUSED:
        verb, after = ("resume", Observed.RUNNING)
    mine = Operation.objects.filter(subject=on.machine.topic).order_by("-pk")
    last = mine.values_list("pk", flat=True).first() or 0
    began = time.perf_counter()
    person.post(reverse("vms:act", args=[on.machine.pk, verb]), {})
    _until(lambda: mine.filter(pk__gt=last, state=State.SUCCEEDED).exists(), f"the operation {verb}")
    took = (time.perf_counter() - began) * 1000
    _until(lambda: _state(on) == after, f"the machine to be {after}")
    return took


def _console(on: Stage, person: Person) -> float:
    """Open the serial console; return the milliseconds from asking for a ticket until it is open."""
    began = time.perf_counter()
    status, answer = person.post(reverse("console:ticket", args=[on.machine.pk]), {"kind": "serial"})
    if status != 200:
        raise RuntimeError(f"no ticket: {status} {answer}")
    ticket = json.loads(answer)
    url = on.portal.url.replace("http", "ws", 1) + ticket["url"]
    with connect(
        url, additional_headers={"Cookie": person.cookie}, origin=on.portal.url, compression=None
    ) as link:
        link.send(ticket["ticket"])
        told = link.recv(timeout=PATIENCE)
        while not isinstance(told, str):
            told = link.recv(timeout=PATIENCE)
        took = (time.perf_counter() - began) * 1000
        if json.loads(told)["type"] != "open":
            raise RuntimeError(f"the console did not open: {told}")
    return took


def _freeze(on: Stage, number: int) -> list[int]:
    """Freeze the crowd's host and begin operations there; return them once they are stuck."""
    machines = VirtualMachine.objects.filter(uuid__in=on.crowd.uuids[number * BEGUN : (number + 1) * BEGUN])
    operator = User.objects.get(username="operator")
    on.crowd.freeze()
    for machine in machines.select_related("host", "project", "owner"):
        power.act(actor=operator, machine=machine, verb="suspend")
    begun = Operation.objects.filter(subject__in=[machine.topic for machine in machines])
    pks = list(begun.values_list("pk", flat=True))
    time.sleep(1)
    _still_stuck(pks)
    return pks


def _still_stuck(pks: list[int]) -> None:
    """Raise RuntimeError unless enough of what was begun on the frozen host is stuck."""
    stuck = Operation.objects.filter(pk__in=pks).exclude(state__in=FINAL).count()
    if stuck < STUCK:
        raise RuntimeError(f"only {stuck} operations are stuck, not {STUCK}")


def _thaw(on: Stage, stuck: list[int]) -> None:
    """Let the host go on, and wait until it is up and what was stuck has ended."""
    on.crowd.thaw()
    ended = Operation.objects.filter(pk__in=stuck, state__in=FINAL)
    _until(lambda: ended.count() == len(stuck), "what was stuck to end")
    host = VirtualMachine.objects.select_related("host").get(uuid=on.crowd.uuids[0]).host
    _until(lambda: type(host).objects.get(pk=host.pk).observed_health == Health.UP, "the host to be up")
