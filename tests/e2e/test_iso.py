"""An installer's CD in the browser: sent, broken off at its end, resumed, and started in a console."""

from pathlib import Path

import pycdlib
import pytest

from tests.e2e import people
from tests.e2e.test_accessibility import keep_picture
from tests.e2e.test_installer import FIRST_SCREEN, SHOWS

pytestmark = pytest.mark.live
INSTALLER = Path("/usr/lib/debian-installer/images/12/amd64/text/debian-installer/amd64")
LOADER = {
    "isolinux.bin": "/usr/lib/ISOLINUX/isolinux.bin",
    "ldlinux.c32": "/usr/lib/syslinux/modules/bios/ldlinux.c32",
    "linux": INSTALLER / "linux",
    "initrd.gz": INSTALLER / "initrd.gz",
}
#: Bytes that the page sends at a time.
PART = 8 << 20
#: The loader asks on the serial line too, and waits for somebody.
ASKS = b"""SERIAL 0 115200
SAY Gatehouse's tests wait for Enter
DEFAULT installer
PROMPT 1
TIMEOUT 0
LABEL installer
  KERNEL linux
  APPEND initrd=initrd.gz vga=normal --- console=ttyS0
"""
#: What an admin does in the catalogue: an item of the CD in a size that it can use.
OFFER = """
from networks.models import Network
from portal.hosts.models import Image
from vms.models import CatalogueItem, Flavour
image = Image.objects.get(name={name!r})
size, _ = Flavour.objects.get_or_create(
    name={name!r}, defaults={{"vcpus": 1, "memory": 1 << 30, "disk": 2 << 30}}
)
item = CatalogueItem.objects.create(name={name!r}, description="An empty machine with a CD.", image=image)
item.flavours.add(size)
item.networks.add(*Network.objects.all())
"""


@pytest.fixture
def cd(tmp_path):
    """Debian's installer on a CD that a BIOS starts, as people download one."""
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, joliet=3)
    for name, path in LOADER.items():
        iso.add_file(str(path), f"/{name.upper()};1", joliet_path=f"/{name}")
    (tmp_path / "isolinux.cfg").write_bytes(ASKS)
    iso.add_file(str(tmp_path / "isolinux.cfg"), "/ISOLINUX.CFG;1", joliet_path="/isolinux.cfg")
    iso.add_eltorito("/ISOLINUX.BIN;1", boot_load_size=4, boot_info_table=True)
    iso.write(str(tmp_path / "installer.iso"))
    iso.close()
    return tmp_path / "installer.iso"


def begin(page, portal, name):
    """Say what the CD is; return the address of its upload."""
    page.goto(f"{portal.url}/machines/catalogue/admin/images/add/")
    page.check("[name=kind][value=iso]")
    told = {"title": "Debian by its CD", "name": name, "version": "1", "os": "debian12", "min_memory": "0.5"}
    for field, value in told.items():
        page.fill(f"[name={field}]", value)
    people.press(page, "Go on to the file")
    return page.url


def begins_at(request):
    return int(request.url.rstrip("/").rsplit("/", 1)[1])


def break_off(page, cd):
    """Send the CD over a line that breaks in its last part; return how many parts came before."""
    arrived = []

    def pass_on(route):
        if begins_at(route.request) + PART > cd.stat().st_size:
            return route.abort("connectionreset")
        arrived.append(route.request.url)
        return route.continue_()

    page.route("**/from/*/", pass_on)
    page.set_input_files("#upload-file", cd)
    page.get_by_text("The connection broke. Trying again.").wait_for(timeout=60_000)
    keep_picture(page, "admin", "iso-broken")
    return len(arrived)


def test_a_cd_that_breaks_off_at_its_end_is_resumed_and_installs_by_hand(portal, sign_in, cd):
    """Red when a part that is there is sent again, or nothing starts from the CD's loader."""
    first, name = sign_in("admin"), people.new_name()
    sign_in.cut = True
    address = begin(first, portal, name)
    with_what_came = break_off(first, cd)
    assert with_what_came == cd.stat().st_size // PART > 3
    first.context.close()

    page, sent = sign_in("admin"), []
    page.on("request", lambda request: "/from/" in request.url and sent.append(begins_at(request)))
    page.goto(address)
    page.get_by_text("Choose it again, and it goes on where it was").wait_for()
    keep_picture(page, "admin", "iso-resume")
    with page.expect_navigation():
        page.set_input_files("#upload-file", cd)
    assert sent == [with_what_came * PART]
    page.get_by_role("link", name="Import the image Debian by its CD").click()
    people.once(page, "Succeeded", 60)
    portal.shell(OFFER.format(name=name))

    machine = people.new_name()
    requester, approver = sign_in("requester"), sign_in("approver")
    requester.goto(f"{portal.url}/machines/catalogue/")
    requester.get_by_role("link", name=f"Ask for {name}").click()
    requester.fill("[name=name]", machine)
    requester.fill("[name=why]", "to install it by hand")
    requester.get_by_label("Installation").select_option(label="By hand, on its screen or serial console")
    people.press(requester, "Send the request")
    people.approve(approver, requester.url)
    people.once(requester, "Succeeded", 120)
    requester.goto(f"{portal.url}/machines/")
    requester.get_by_role("link", name=machine, exact=True).click()
    requester.get_by_role("link", name="Serial console").click()
    # It asked before anybody looked; whoever presses the Tab key is asked again, once the line is there.
    for _turn in range(60):
        requester.locator(".xterm-screen").click()
        requester.keyboard.press("Tab")
        requester.wait_for_timeout(1000)
        if requester.evaluate(SHOWS, "boot:"):
            break
    keep_picture(requester, "requester", "iso-boot")
    requester.locator(".xterm-screen").click()
    requester.keyboard.press("Enter")
    requester.wait_for_function(SHOWS, arg="Select a language", timeout=FIRST_SCREEN * 1000)
    keep_picture(requester, "requester", "iso-installer")
