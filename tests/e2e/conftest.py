"""One portal and one browser for all tests here: starting them takes longer than most tests."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.e2e import people
from tests.e2e.people import SignIn
from tests.e2e.portals import CHROMIUM, FLAGS, Portal, remove_domains, running

#: All tests together ask for more machines than the first project may have and the host takes: one that a
#: test removes on the host still counts.
PLENTY = """
from portal.accounts.models import User
from portal.hosts.limits import set_limits
from portal.hosts.models import Host
from portal.operations.quotas import set_quota
from portal.operations.scopes import EVERY_PROJECT
Host.objects.update(cpu_overcommit=50)
for host in Host.objects.all():
    set_limits(host)
set_quota(actor=User.objects.get(username="admin"), scope=EVERY_PROJECT, limits={"machines": 99, "vcpu": 99})
"""


@pytest.fixture(scope="package")
def portal(tmp_path_factory) -> Iterator[Portal]:
    """A portal with this machine as its host. A test that breaks a part of it asks for `broken` instead."""
    kept = os.environ.get("GATEHOUSE_E2E_PORTAL")
    if kept:
        yield _kept(Path(kept))
        return
    with running(tmp_path_factory.mktemp("state")) as made:
        made.shell(PLENTY)
        yield made


def _kept(state: Path) -> Portal:
    """While tests are written: a portal that `python -m tests.e2e` started, and that goes on running."""
    told = json.loads((state / "portal.json").read_text())
    return Portal(told["url"], state, told["env"], told["passwords"])


@pytest.fixture
def broken(portal: Portal) -> Iterator[Portal]:
    """The same portal, for a test that breaks it: whatever does not run is started again afterwards."""
    yield portal
    portal.mend()


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def sign_in(portal: Portal, browser: Browser) -> Iterator[SignIn]:
    """Sign somebody in; a script error or a blocked resource on any page fails the test."""
    made = SignIn(portal, browser)
    yield made
    made.close()
    assert not made.complaints


@dataclass(frozen=True)
class Machine:
    """A machine that somebody asked for and got, by the browser."""

    pk: int
    name: str
    uuid: str

    @classmethod
    def of(cls, name: str, pk: int, uuid: str) -> "Machine":
        """Return what the database holds in these columns."""
        return cls(pk, name, str(UUID(uuid)))


@pytest.fixture
def build(portal: Portal, sign_in: SignIn) -> Iterator[Callable[[], Machine]]:
    """Build a tiny machine as people do; it is removed afterwards."""
    made: list[Machine] = []

    def build() -> Machine:
        name = people.new_name()
        requester, approver = sign_in("requester"), sign_in("approver")
        people.approve(approver, people.ask(requester, name))
        people.once(requester, "Succeeded", 60)
        for page in (requester, approver):
            page.context.close()
        found = portal.rows("SELECT id, uuid FROM vms_virtualmachine WHERE name = ?", name)
        made.append(Machine.of(name, *found[0]))
        return made[-1]

    yield build
    remove_domains({machine.uuid for machine in made})
