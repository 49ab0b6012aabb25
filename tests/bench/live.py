"""Rows `live.*`: from a change in libvirt to open pages, with a thousand machines in the database.

The thousand are domains of a libvirtd that the watcher watches (tests.bench.crowd); the one whose change a
browser shows is a real guest on this machine's libvirt, paused and continued by this process. Both ends are
read on one clock: time.time() here and performance.timeOrigin + performance.now() in the browser are the wall
clock of one machine.
"""

import os
import random
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import libvirt
from playwright.sync_api import Page, sync_playwright

from portal.operations.models import Operation
from portal.operations.states import State
from tests.bench import build, estate
from tests.bench.crowd import Crowd, crowd
from tests.bench.measure import Row, median, p95
from tests.bench.portal import Person, Portal, started
from tests.bench.sockets import Sockets, lists
from vms.models import VirtualMachine

MACHINES, LISTS, SOCKETS = 1000, 50, 200
EVENTS, WARM = 40, 5
TO_DOM, SETTLES, GROWTH = 150.0, 5.0, 100.0  # ms, s, MiB
LOAD_SECONDS, CHANGES_A_SECOND = 20, 100
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
FLAGS += ["--disable-background-networking", "--disable-component-update"]
ROLES = ("requester", "approver", "operator", "auditor", "admin")
#: Notes the moment of every change of a row's text.
NOTE_CHANGES = """(id) => {
  window.changes = [];
  const text = () => document.getElementById(id)?.children[1].textContent.trim();
  let last = text();
  new MutationObserver(() => {
    const now = text();
    if (now === last) return;
    last = now;
    window.changes.push([performance.timeOrigin + performance.now(), now]);
  }).observe(document.getElementById("vm-list"), { childList: true, subtree: true, characterData: true });
}"""


@dataclass(frozen=True)
class Stage:
    """A portal with a crowd and one real machine that runs."""

    portal: Portal
    crowd: Crowd
    machine: VirtualMachine
    domain: libvirt.virDomain


@contextmanager
def stage() -> Iterator[Stage]:
    """Set the stage until the block ends."""
    with started() as portal, crowd(MACHINES) as many:
        machine = _real_machine(portal)
        (host,) = estate.hosts([many.uri])
        estate.machines(MACHINES, [host], uuids=many.uuids)
        domain = libvirt.open(build.URI).lookupByUUIDString(str(machine.uuid))
        yield Stage(portal, many, machine, domain)


def _real_machine(portal: Portal) -> VirtualMachine:
    """Have the portal build a machine, to its end."""
    operation = build.ask()
    build.approve(Person(portal, "approver"), operation)
    build.follow(operation)
    if operation.state != State.SUCCEEDED:
        raise RuntimeError(f"the machine was not built: {operation.state}")
    return VirtualMachine.objects.select_related("host").get(built_by=Operation.objects.get(pk=operation.pk))


def measure() -> Iterator[Row]:
    """Yield memory, storm and the way to the browser.

    `live.sockets`: red when LiveConsumer keeps every fragment that it sent.
    `live.storm`: red when LiveConsumer renders a bell at a time (GATHER = 0 and one key a turn).
    `live.event_to_dom`: red when GATHER is 0.2, or when the watcher hears of changes by its lists alone.
    """
    with stage() as on:
        people = [Person(on.portal, role) for role in ROLES]
        yield _memory(on, people)
        with browser(on, people[0]) as page:
            times = [event_to_dom(on, page) for _ in range(WARM + EVENTS)][WARM:]
        note = f"median of {EVENTS}, p95 {p95(times):.0f}"
        yield Row("live.event_to_dom", median(times), "ms", TO_DOM, note)
        yield _storm(on, people)


def _memory(on: Stage, people: list[Person]) -> Row:
    """Measure the web process's growth with 200 sockets under a hundred changes a second."""
    idle = pss(on.portal.pid("web"))
    most = 0.0
    with Sockets(on.portal, lists(people, SOCKETS)):
        for _second in range(LOAD_SECONDS):
            end = time.monotonic() + 1
            for _ in range(CHANGES_A_SECOND):
                on.crowd.toggle(random.randrange(MACHINES))
            most = max(most, pss(on.portal.pid("web")))
            time.sleep(max(0.0, end - time.monotonic()))
    note = f"{SOCKETS} sockets, {LOAD_SECONDS} s of {CHANGES_A_SECOND} changes a second; idle {idle:.0f}"
    return Row("live.sockets", most - idle, "MiB", GROWTH, note)


def pss(pid: int) -> float:
    """Return a process's proportional share of memory in MiB."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"{pid} tells no Pss")


def _storm(on: Stage, people: list[Person]) -> Row:
    """Measure until every one of the open lists shows the last state of every row it has."""
    for number in range(MACHINES):
        on.crowd.go_on(number)
    real = f"vms.row:{on.machine.pk}"
    with Sockets(on.portal, lists(people, LISTS)) as sockets:
        sockets.wait(lambda each: each.all_show("Running", but=real))
        began = time.perf_counter()
        for number in range(MACHINES):
            on.crowd.pause(number)
        told = time.perf_counter() - began
        sockets.wait(lambda each: each.all_show("Paused", but=real))
        took = time.perf_counter() - began
    note = f"{MACHINES} changes within {told * 1000:.0f} ms, {LISTS} open lists, {sockets.reopened} reopened"
    return Row("live.storm", took, "s", SETTLES, note)


@contextmanager
def browser(on: Stage, person: Person) -> Iterator[Page]:
    """Open the list in Chromium, with the real machine on its page."""
    with ExitStack() as stack:
        playwright = stack.enter_context(sync_playwright())
        chromium = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        stack.callback(chromium.close)
        context = chromium.new_context()
        cookies = [part.split("=", 1) for part in person.cookie.split("; ")]
        context.add_cookies([{"name": n, "value": v, "url": on.portal.url} for n, v in cookies])
        page = context.new_page()
        with page.expect_websocket() as opened:
            page.goto(f"{on.portal.url}/machines/?sort=lease")
        opened.value.wait_for_event("framereceived")
        page.evaluate(NOTE_CHANGES, f"vm-{on.machine.pk}")
        yield page


def event_to_dom(on: Stage, page: Page) -> float:
    """Change the real machine's state; return the milliseconds until its row shows the new one.

    The time begins before the call to libvirt, so it holds the change itself too.
    """
    # Not in step with the watcher's own lists, and later than a page rests between two messages (REST in
    # portal.live.consumer): what comes sooner waits on purpose, and `live.storm` is about that.
    time.sleep(random.uniform(0.45, 0.75))
    word, change = ("Paused", on.domain.suspend)
    if on.domain.state()[0] == libvirt.VIR_DOMAIN_PAUSED:
        word, change = ("Running", on.domain.resume)
    page.evaluate("() => { window.changes.length = 0; }")
    began = time.time()
    change()
    page.wait_for_function(
        "(word) => window.changes.some(([, text]) => text === word)", arg=word, polling=20, timeout=20_000
    )
    at = page.evaluate("(word) => window.changes.find(([, text]) => text === word)[0]", word)
    return at - began * 1000


# The browser's own loop runs in this thread; what asks the database meanwhile waits for nobody else.
os.environ.setdefault("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
