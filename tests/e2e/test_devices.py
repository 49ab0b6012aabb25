"""Cards, limits, a suspended machine and an export in the browser, looked at on host and guest."""

import hashlib
import tarfile

import pytest

from portal.drivers.registry import driver_for
from tests.e2e import people
from tests.e2e.test_accessibility import keep_picture
from tests.e2e.test_settings import URI, virsh
from tests.vms.real import await_agent, inside

pytestmark = pytest.mark.live


@pytest.fixture
def machine(build):
    """A machine whose guest answers."""
    made = build()
    await_guest(made)
    return made


def await_guest(machine):
    driver = driver_for(URI)
    await_agent(driver, machine.uuid)
    driver.close()


def busybox(machine, *words):
    return inside(machine.uuid, "/bin/busybox", *words)


def done(page, button, limit=60.0):
    """Press a button and wait until what it began has succeeded."""
    people.press(page, button)
    people.once(page, "Succeeded", limit)


def test_what_people_do_to_a_machine_in_a_day(portal, sign_in, machine, tmp_path):
    """Red when a button leads nowhere, or the host or the guest does not have what the page says."""
    page, address = sign_in("requester"), f"{portal.url}/machines/{machine.pk}/"
    page.goto(f"{address}cards/")
    done(page, "Add the card")
    assert "eth1" in busybox(machine, "ls", "/sys/class/net")
    page.goto(f"{address}cards/")
    keep_picture(page, "devices", "cards")
    page.locator("a.row-name").last.click()
    mac = page.url.rstrip("/").rsplit("/", 1)[1].replace("%3A", ":")
    done(page, "Pull the cable")
    assert "down" in virsh("domif-getlink", machine.uuid, mac)
    page.goto(f"{address}cards/{mac}/")
    keep_picture(page, "devices", "card")
    done(page, "Remove the card")
    assert mac not in virsh("dumpxml", machine.uuid)

    page.goto(f"{address}disks/vda/")
    page.fill("[name=total_iops_sec]", "900")
    done(page, "Set the limits")
    assert "900" in virsh("blkdeviotune", machine.uuid, "vda")

    busybox(machine, "touch", "/tmp/in-memory-alone")
    page.goto(address)
    people.press(page, "Suspend to disk")
    people.once(page, "Suspended to disk", 60)
    keep_picture(page, "devices", "suspended")
    people.press(page, "Start")
    people.once(page, "Running", 60)
    await_guest(machine)
    assert "in-memory-alone" in busybox(machine, "ls", "/tmp")

    people.press(page, "Force off")
    people.is_off(page, 30)
    page.goto(f"{address}cards/")
    page.locator("a.row-name").first.click()
    own = page.url.rstrip("/").rsplit("/", 1)[1].replace("%3A", ":")
    page.fill("[name=inbound_average]", "2.5")
    done(page, "Set the limits")
    assert "2560" in virsh("domiftune", machine.uuid, own, "--config")
    page.goto(address)
    people.press(page, "Export")
    page.get_by_role("link", name=f"Export {machine.name}").click()
    people.once(page, "Succeeded", 120)
    page.goto(address)
    keep_picture(page, "devices", "exported")
    with page.expect_download() as taken:
        page.get_by_role("button", name="Download").click()
    file = tmp_path / "taken.ova"
    taken.value.save_as(file)
    told = page.locator("dt", has_text="SHA-256").locator("xpath=following-sibling::dd[1]").inner_text()
    assert hashlib.sha256(file.read_bytes()).hexdigest() == told.strip()
    with tarfile.open(file) as ova:
        assert any("domain.xml" in name for name in ova.getnames())
