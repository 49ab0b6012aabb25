"""Debian's installer from the network, by the browser alone, up to its first screen in the console."""

import pytest

from tests.e2e import people
from tests.e2e.portals import wait_until

pytestmark = pytest.mark.live
#: Seconds that the installer gets under emulation until its first question.
FIRST_SCREEN = 300
#: What an admin does by command and in the catalogue: the installer, and an item in a size that it can use.
OFFER = """
from django.core.management import call_command
from networks.models import Network
from portal.hosts.models import Image
from vms.models import CatalogueItem, Flavour
call_command("add_installer", username="admin")
image = Image.objects.get(kind="boot")
size, _ = Flavour.objects.get_or_create(
    name="installer", defaults={"vcpus": 1, "memory": image.min_memory, "disk": image.virtual_size}
)
item, _ = CatalogueItem.objects.get_or_create(
    name="Debian by its installer", defaults={"description": "An empty machine.", "image": image}
)
item.flavours.add(size)
item.networks.add(*Network.objects.all())
"""
#: How often a host was proven, and has the images that there were by then.
PROVEN = "SELECT count(*) FROM operations_operation WHERE kind = 'hosts.enrol' AND state = 'succeeded'"
SHOWS = """text => {
  const terminal = document.getElementById("main").terminal;
  if (!terminal) return false;
  const lines = terminal.buffer.active;
  for (let row = 0; row < lines.length; row++)
    if (lines.getLine(row).translateToString().includes(text)) return true;
  return false;
}"""


def test_debians_installer_asks_its_first_question_in_the_console(portal, sign_in):
    """Red when the kernel or the initrd does not reach the host, or the installer knows no serial line."""
    portal.shell(OFFER)
    admin = sign_in("admin")
    admin.goto(f"{portal.url}/hosts/")
    admin.locator("a.row-name").first.click()
    before = portal.one(PROVEN)
    admin.get_by_role("button", name="Prove again").click()
    wait_until(lambda: portal.one(PROVEN) > before, 120, "the host is proven again")

    name = people.new_name()
    requester, approver = sign_in("requester"), sign_in("approver")
    requester.goto(f"{portal.url}/machines/catalogue/")
    requester.get_by_role("link", name="Ask for Debian by its installer").click()
    requester.fill("[name=name]", name)
    requester.fill("[name=why]", "to install it by hand")
    requester.get_by_label("Installation").select_option(label="By hand, on its screen or serial console")
    requester.get_by_role("button", name="Send the request").click()
    requester.wait_for_selector("text=Awaiting approval")
    people.approve(approver, requester.url)
    people.once(requester, "Succeeded", 120)

    requester.goto(f"{portal.url}/machines/")
    requester.get_by_role("link", name=name, exact=True).click()
    requester.get_by_text("then it starts from its disk").wait_for()
    requester.get_by_role("link", name="Serial console").click()
    requester.wait_for_function(SHOWS, arg="Select a language", timeout=FIRST_SCREEN * 1000)
