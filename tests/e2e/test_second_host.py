"""An admin adds a further host in the browser, with everything that may go wrong on the way."""

from collections.abc import Iterator

import pytest

from tests.e2e import people
from tests.e2e.portals import Portal

pytestmark = pytest.mark.live
NAME = "gttest-second"
FORGET = f"""
from portal.hosts.models import Host, ImageAttachment, PoolAttachment
ImageAttachment.objects.filter(pool__host__name={NAME!r}).delete()
PoolAttachment.objects.filter(host__name={NAME!r}).delete()
Host.objects.filter(name={NAME!r}).delete()
"""


@pytest.fixture
def forgotten(portal: Portal) -> Iterator[None]:
    """The portal forgets the host afterwards, so that no later test's machine is placed there."""
    yield
    portal.shell(FORGET)


def test_a_further_host_is_added_confirmed_and_enrolled(sign_in, portal, second_host, forgotten):
    """Red when the page of joining follows no topic: it does not change by itself."""
    page = sign_in("admin")
    page.goto(f"{portal.url}/hosts/add/")
    page.fill("[name=name]", NAME)
    page.fill("[name=uri]", second_host.uri("gate"))
    page.fill("[name=pool_path]", "/var/lib/libvirt/images/gatehouse")
    page.get_by_role("button", name="Add the host").click()
    people.once(page, "Is this the host?", 30)
    people.once(page, second_host.fingerprint, 1)
    line = page.input_value("#authorized-line")
    page.get_by_role("button", name="confirm and enrol").click()
    people.once(page, "The host let nobody in with the portal's key", 60)
    second_host.authorize(line, "gate")
    page.get_by_role("button", name="Try the enrolment again").click()
    people.once(page, "The host is ready", 180)
    page.get_by_role("link", name="Open the host").click()
    people.once(page, "Rules on bridges", 5)
    key = portal.one("SELECT host_key FROM hosts_host WHERE name = ?", NAME)
    assert key.startswith("ssh-ed25519 ")
    second_host.change_host_key()
    page.get_by_role("link", name="Connection and host key").click()
    page.get_by_role("button", name="Fetch the host key again").click()
    people.once(page, "The host key has changed", 30)
    people.once(page, second_host.fingerprint, 1)
    page.get_by_role("button", name="It is the same: confirm").click()
    people.once(page, "The host is ready", 10)
    assert portal.one("SELECT host_key FROM hosts_host WHERE name = ?", NAME) != key
