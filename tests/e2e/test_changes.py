"""A machine's size and disks, changed in the browser while it runs, and looked at inside its guest."""

import pytest
from playwright.sync_api import Page

from portal.drivers.registry import driver_for
from tests.e2e import people
from tests.e2e.test_accessibility import keep_picture
from tests.e2e.test_settings import URI
from tests.vms.real import await_agent, inside

pytestmark = pytest.mark.live


def approve(page: Page, title: str) -> None:
    page.goto("/".join(page.url.split("/", 3)[:3]) + "/requests/inbox/")
    page.get_by_role("link", name=title).click()
    keep_picture(page, "change", "deciding")
    page.get_by_role("button", name="Approve", exact=True).click()


def test_a_machine_grows_in_the_browser_and_its_guest_sees_it(portal, sign_in, build):
    """Red when a change that was approved is not carried out, or the page does not say what waits."""
    machine = build()
    driver = driver_for(URI)
    await_agent(driver, machine.uuid)
    page, approver = sign_in("requester"), sign_in("approver")
    address = f"{portal.url}/machines/{machine.pk}/"
    page.goto(address)
    page.get_by_role("link", name="Resize").click()
    people.once(page, "It runs emulated", 30)
    keep_picture(page, "change", "size")
    page.get_by_label("vCPUs").fill("2")
    page.get_by_label("What for").fill("two things at once")
    page.get_by_role("button", name="Ask for this size").click()
    approve(approver, f"Resize {machine.name}")
    people.once(page, "Succeeded", 60)
    people.once(page, "It gets the processors when it is switched off and started again", 10)
    keep_picture(page, "change", "resized")
    assert inside(machine.uuid, "/bin/busybox", "nproc").strip() == "1"

    page.goto(address)
    page.get_by_role("link", name="Add a disk").click()
    keep_picture(page, "change", "add")
    page.get_by_label("Disk in GiB").fill("0.25")
    page.get_by_label("What for").fill("data")
    page.get_by_role("button", name="Ask for this disk").click()
    approve(approver, f"Add a disk to {machine.name}")
    people.once(page, "Succeeded", 60)
    assert inside(machine.uuid, "/bin/busybox", "cat", "/sys/block/vdb/size").strip() == str(1 << 19)
    page.goto(f"{address}disks/vdb/")
    keep_picture(page, "change", "disk")
    page.get_by_label("Type vdb to confirm").fill("vdb")
    page.get_by_role("button", name="Delete", exact=True).click()
    page.goto(address)
    people.once(page, f"Delete vdb of {machine.name}", 10)
    page.get_by_role("link", name=f"Delete vdb of {machine.name}").click()
    people.once(page, "Succeeded", 60)
    assert "vdb" not in inside(machine.uuid, "/bin/busybox", "ls", "/sys/block")
    driver.close()
