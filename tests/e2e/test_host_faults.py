"""A guest freezes on its host while people look at its machines. Not for: the portal's own parts.

The host is a real further one in namespaces of its own: this machine's libvirt is never touched. The portal
reaches it by its socket; how a host is joined by ssh is tested elsewhere.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.e2e import people
from tests.e2e.conftest import Machine
from tests.e2e.portals import Portal, wait_until
from tests.secondhost.lab import SecondHost

pytestmark = pytest.mark.live
POOL = "/var/lib/gatehouse-small"
#: Bytes: room for the images and two machines; memory is taken only for what is written.
ROOM = 640 << 20
ENROL = """
from portal.accounts.models import User
from portal.hosts.models import Host
from portal.hosts.services import enrol_again
from vms.models import CatalogueItem, Flavour
admin = User.objects.get(username="admin")
sliver = Flavour.objects.create(name="Sliver", vcpus=1, memory=256 << 20, disk=160 << 20)
CatalogueItem.objects.get(name="Tiny Linux").flavours.add(sliver)
host = Host.objects.create(name={name!r}, uri={uri!r})
print(enrol_again(actor=admin, host=host, pool_path={pool!r}).pk, host.pk)
"""
#: New machines go to one host alone.
ONLY_ON = """
from portal.hosts.models import Host
Host.objects.update(maintenance=False)
Host.objects.exclude(pk={pk}).update(maintenance={pk} > 0)
"""


@dataclass
class Second:
    """The further host as the portal knows it."""

    pk: int
    real: SecondHost

    def pid_of(self, machine: Machine) -> str:
        """Return the process of a machine's QEMU, as the host numbers it."""
        return self.real.run("pgrep", "-f", f"qemu-system.*{machine.uuid}").split()[0]


@pytest.fixture(scope="module")
def second(portal: Portal, lab) -> Iterator[Second]:
    """A further host with a small pool, where all new machines go; the portal forgets both afterwards."""
    real = lab.host()
    real.run("mkdir", "-p", POOL)
    real.run("mount", "-t", "tmpfs", "-o", f"size={ROOM},mode=711", "tmpfs", POOL)
    told = portal.shell(ENROL.format(name=real.name, uri=real.local_uri, pool=POOL))
    operation, pk = told.split()
    ended = "SELECT state FROM operations_operation WHERE id = ?"
    wait_until(lambda: portal.one(ended, operation) == "succeeded", 60, "the second host is enrolled")
    portal.shell(ONLY_ON.format(pk=pk))
    yield Second(int(pk), real)
    portal.shell(ONLY_ON.format(pk=0))


@pytest.fixture(scope="module")
def make(portal, browser, second):
    """Build a machine there, as people do."""

    def make(name="", word="Succeeded"):
        name = name or people.new_name()
        sign_in = people.SignIn(portal, browser)
        requester, approver = sign_in("requester"), sign_in("approver")
        people.approve(approver, people.ask(requester, name, flavour="Sliver"))
        people.once(requester, word, 90)
        said = requester.inner_text("#main")
        sign_in.close()
        assert sign_in.complaints == []
        found = portal.rows("SELECT id, uuid FROM vms_virtualmachine WHERE name = ?", name)
        return (Machine.of(name, *found[0]) if found else None), said

    return make


@pytest.fixture(scope="module")
def machine(make) -> Machine:
    """A machine on the further host, for tests that leave it as it was."""
    return make()[0]


def row(page, name):
    """Return the words of the host called `name` in the list of hosts."""
    return page.locator("tr", has_text=name).inner_text()


def test_a_frozen_qemu_holds_up_nobody_else(portal, sign_in, second, machine, make):
    """Untried: when the watcher asks each guest in turn, or a call on a guest has no limit."""
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
    for label, word in (("Force off", "Off"), ("Start", "Running")):
        page.get_by_role("button", name=label, exact=True).click()
        people.once(page, word, 30)
