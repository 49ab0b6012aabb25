"""A host dies, freezes or fills up while people look at its machines. Not for: the portal's own parts.

The host is a real further one in namespaces of its own: this machine's libvirt is never touched. The portal
reaches it by its socket; how a host is joined by ssh is tested elsewhere.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import pytest

from portal.drivers.registry import driver_for
from tests.e2e import people
from tests.e2e.conftest import Machine
from tests.e2e.portals import Portal, remove_domains, wait_until
from tests.secondhost.lab import SecondHost

pytestmark = pytest.mark.live
POOL = "/var/lib/gatehouse-small"
#: Bytes: room for the images and every machine that may stay; memory is taken only for what is written.
ROOM = 1 << 30
MIB = 1 << 20
#: From now on new machines go to the new host alone, and have disks of their own, not layers over the image.
ENROL = """
from portal.accounts.models import User
from portal.hosts.models import Host
from portal.hosts.services import enrol_again
from vms.models import CatalogueItem, Flavour
admin = User.objects.get(username="admin")
sliver = Flavour.objects.create(name="Sliver", vcpus=1, memory=256 << 20, disk=160 << 20)
CatalogueItem.objects.get(name="Tiny Linux").flavours.add(sliver)
CatalogueItem.objects.update(linked_clone=False)
Host.objects.update(maintenance=True)
host = Host.objects.create(name={name!r}, uri={uri!r})
print(enrol_again(actor=admin, host=host, pool_path={pool!r}).pk, host.pk)
"""
FORGET = """
from networks.models import Port
from portal.hosts.models import Host, ImageAttachment, PoolAttachment
from vms.models import CatalogueItem, Flavour, VirtualMachine
VirtualMachine.objects.filter(host={pk}).delete()
Port.objects.filter(host={pk}).delete()
ImageAttachment.objects.filter(pool__host={pk}).delete()
PoolAttachment.objects.filter(host={pk}).delete()
Host.objects.filter(pk={pk}).delete()
Flavour.objects.filter(name="Sliver").delete()
CatalogueItem.objects.update(linked_clone=True)
Host.objects.update(maintenance=False)
"""


@dataclass
class Second:
    """The further host as the portal knows it."""

    pk: int
    real: SecondHost

    def pid_of(self, machine: Machine) -> str:
        """Return the process of a machine's QEMU, as the host numbers it."""
        return self.real.run("pgrep", "-f", f"qemu-system.*{machine.uuid}").split()[0]

    def left(self) -> list[str]:
        """Return what is on the host besides images."""
        driver = driver_for(self.real.local_uri)
        pool = next(pool for pool in driver.list_pools() if pool.path == POOL)
        found = [info.name for info in driver.list_domains()]
        found += [
            info.name for info in driver.list_volumes(pool.name) if not info.name.startswith("gatehouse-")
        ]
        driver.close()
        return sorted(found)


def build(portal, browser, name="", word="Succeeded", flavour=""):
    """Ask for a machine and approve it; return it (None where it was not built) and what the page said."""
    name = name or people.new_name()
    sign_in = people.SignIn(portal, browser)
    requester, approver = sign_in("requester"), sign_in("approver")
    people.approve(approver, people.ask(requester, name, flavour=flavour))
    people.once(requester, word, 90)
    said = requester.inner_text("#main")
    sign_in.close()
    assert sign_in.complaints == []
    found = portal.rows("SELECT id, uuid FROM vms_virtualmachine WHERE name = ?", name)
    return (Machine.of(name, *found[0]) if found else None), said


@pytest.fixture(scope="module")
def here(portal, browser) -> Iterator[Machine]:
    """A machine on this machine, to see that nobody else notices. Built before there is another host."""
    made = build(portal, browser)[0]
    yield made
    remove_domains({made.uuid})


@pytest.fixture(scope="module")
def second(portal: Portal, lab, here) -> Iterator[Second]:
    """A further host with a small pool, where all new machines go; the portal forgets it afterwards."""
    real = lab.host()
    real.run("mkdir", "-p", POOL)
    real.run("mount", "-t", "tmpfs", "-o", f"size={ROOM},mode=711", "tmpfs", POOL)
    told = portal.shell(ENROL.format(name=real.name, uri=real.local_uri, pool=POOL))
    operation, pk = told.split()
    ended = "SELECT state FROM operations_operation WHERE id = ?"
    # A kernel that hangs on KVM, where one sector ran, is waited for until it was silent for long enough.
    wait_until(lambda: portal.one(ended, operation) == "succeeded", 180, "the second host is enrolled")
    yield Second(int(pk), real)
    portal.shell(FORGET.format(pk=pk))


@pytest.fixture(scope="module")
def make(portal, browser, second):
    """Build a machine there, as people do."""
    return lambda name="", word="Succeeded": build(portal, browser, name, word, "Sliver")


@pytest.fixture(scope="module")
def machine(make) -> Machine:
    """A machine on the further host, for tests that leave it as it was."""
    return make()[0]


def row(page, name):
    """Return the words of the host called `name` in the list of hosts."""
    return page.locator("tr", has_text=name).inner_text()


@contextmanager
def unwatched(portal: Portal) -> Iterator[None]:
    """Freeze the watcher: the portal goes by what it saw before."""
    pid = portal.pid("watcher")
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def stop(real, how):
    if how == "killed":
        real.kill_libvirtd()
    else:
        real.freeze_libvirtd()


def start(real, how):
    if how == "killed":
        real.start_libvirtd()
    else:
        real.thaw_libvirtd()


@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_a_host_that_does_not_answer_is_seen_and_seen_again(portal, sign_in, second, machine, here, how):
    """Red when MachineObserver.host_stale does nothing: the machine goes on as running."""
    operator, requester, other = sign_in("operator"), sign_in("requester"), sign_in("requester")
    operator.goto(f"{portal.url}/hosts/")
    requester.goto(f"{portal.url}/machines/{machine.pk}/")
    other.goto(f"{portal.url}/machines/{here.pk}/")
    wait_until(lambda: "Up" in row(operator, second.real.name), 20)
    stop(second.real, how)
    try:
        wait_until(lambda: "Does not answer" in row(operator, second.real.name), 20)
        people.once(requester, "Unknown", 10)
        button = requester.get_by_role("button", name="Force off", exact=True)
        assert button.is_disabled() and button.get_attribute("title") == "The host does not answer."
        # The other host is as before, and so is what is done there.
        people.once(other, "Running", 5)
        other.get_by_role("button", name="Pause", exact=True).click()
        people.once(other, "Paused", 10)
        other.get_by_role("button", name="Resume", exact=True).click()
        people.once(other, "Running", 10)
    finally:
        start(second.real, how)
    wait_until(lambda: "Up" in row(operator, second.real.name), 30)
    people.once(requester, "Running", 20)


def test_a_frozen_qemu_holds_up_nobody_else(portal, sign_in, second, machine, make):
    """Red when the watcher asks each guest in turn, or a call on a guest has no limit."""
    other, _said = make()
    page, neighbour, operator = sign_in("requester"), sign_in("requester"), sign_in("operator")
    page.goto(f"{portal.url}/machines/{machine.pk}/")
    neighbour.goto(f"{portal.url}/machines/{other.pk}/")
    operator.goto(f"{portal.url}/hosts/")
    pid = second.pid_of(machine)
    second.real.run("kill", "-STOP", pid)
    try:
        page.get_by_role("button", name="Pause", exact=True).click()
        neighbour.get_by_role("button", name="Pause", exact=True).click()
        people.once(neighbour, "Paused", 15)
        assert "Up" in row(operator, second.real.name)
        newest = "SELECT id, state FROM operations_operation WHERE title = ? ORDER BY id DESC"
        found = lambda: portal.rows(newest, f"Pause {machine.name}")[0]  # noqa: E731
        wait_until(lambda: found()[1] == "failed", 120, "it gives up")
        number = found()[0]
        page.goto(f"{portal.url}/requests/{number}/")
        assert "took too long to answer" in page.inner_text("#main")
    finally:
        second.real.run("kill", "-CONT", pid)
    page.goto(f"{portal.url}/machines/{machine.pk}/")
    people.press(page, "Force off")
    people.is_off(page, 30)
    people.press(page, "Start")
    people.once(page, "Running", 30)


def test_a_disk_that_fills_up_in_the_middle_of_a_clone_leaves_nothing(portal, second, make):
    """Red when settle() leaves the network port of a machine that was not built.

    The part that was written is removed by libvirt itself: CloneVolume.undo finds nothing.
    """
    disk = "SELECT held, used FROM operations_counter WHERE scope = ? AND resource = 'disk'"
    pool = portal.one("SELECT pool_id FROM hosts_poolattachment WHERE host_id = ?", second.pk)
    before = portal.rows(disk, f"pool:{pool}"), second.left()
    ports = portal.one("SELECT count(*) FROM networks_port")
    # The image fits as it is, compressed; its copy is not compressed and needs nearly 3 MiB more.
    image = int(second.real.run("bash", "-c", f"du -B1 {POOL}/gatehouse-tiny-*").split()[0])
    free = int(second.real.run("df", "--output=avail", "-B1", POOL).split()[1])
    name = people.new_name()
    # Between two looks of the watcher: what it sees to be full is promised to nobody.
    with unwatched(portal):
        second.real.run("fallocate", "-l", str(free - image - MIB), f"{POOL}/filler")
        made, said = make(name, "Failed")
    assert made is None and "storage is full" in said
    failed = "SELECT error_raw FROM operations_steprecord WHERE name = 'volume' ORDER BY id DESC"
    assert "No space left on device" in portal.one(failed)  # the host's words: the clone had begun
    left = [item for item in second.left() if item != "filler"]
    assert (portal.rows(disk, f"pool:{pool}"), left) == before
    assert portal.one("SELECT count(*) FROM networks_port") == ports
    # Nobody is promised what is not there, and with room again the same request is carried out.
    room = 'SELECT "limit" - held - used FROM operations_counter WHERE scope = ? AND resource = \'disk\''
    wait_until(lambda: portal.one(room, f"pool:{pool}") < 160 * MIB, 30, "the full pool is seen")
    second.real.run("rm", f"{POOL}/filler")
    wait_until(lambda: portal.one(room, f"pool:{pool}") >= 160 * MIB, 30, "the room is seen")
    assert make(name)[0] is not None


@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_a_host_that_goes_away_in_the_middle_of_a_build_leaves_all_or_nothing(portal, sign_in, second, how):
    """Red when find_lost_operations() brings nothing back: it stays lost.

    The time on the page is red when shell.js looks for no [data-elapsed].
    """
    before, name = second.left(), people.new_name()
    requester, approver = sign_in("requester"), sign_in("approver")
    address = people.ask(requester, name, flavour="Sliver")
    people.approve(approver, address)
    operation = portal.one("SELECT id FROM operations_operation WHERE title = ?", f"Create {name}")
    begun = "SELECT count(*) FROM operations_steprecord WHERE operation_id = ?"
    wait_until(lambda: portal.one(begun, operation) >= 2, 30, "it is being built")
    stop(second.real, how)
    try:
        people.once(requester, "The host is away.", 120)
        # Nothing is pushed while it waits; the time it takes goes on all the same.
        taken = requester.locator("[data-elapsed]")
        first = taken.inner_text()
        wait_until(lambda: taken.inner_text() != first, 5, "the time goes on")
    finally:
        start(second.real, how)
    state = "SELECT state FROM operations_operation WHERE id = ?"
    over = ("succeeded", "failed", "cancelled")
    # A call that the host had begun may hold its volume until libvirt gives it up.
    with suppress(AssertionError):
        wait_until(lambda: portal.one(state, operation) in over, 150)
    steps = "SELECT name, stage, error_code, error_raw FROM operations_steprecord WHERE operation_id = ?"
    assert portal.one(state, operation) in over, portal.rows(steps, operation)
    found = portal.rows("SELECT uuid FROM vms_virtualmachine WHERE name = ?", name)
    if portal.one(state, operation) == "succeeded":
        assert len(found) == 1 and len(second.left()) == len(before) + 3
    else:
        assert found == [] and second.left() == before
