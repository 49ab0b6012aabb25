"""A machine becomes a template, five are made of that at once, and a disk moves while its guest writes."""

import re
import secrets
from uuid import UUID

import pytest

from portal.drivers.registry import driver_for
from tests.e2e import people
from tests.e2e.portals import remove_domains
from tests.e2e.test_accessibility import keep_picture
from tests.e2e.test_changes import approve
from tests.e2e.test_settings import URI
from tests.vms.real import POOL_ROOT, await_agent, inside

pytestmark = pytest.mark.live
FIVE = 5
#: Of a pool that goes, the portal forgets what it knew.
FORGET = """
from portal.hosts.models import ImageAttachment, PoolAttachment, Volume
from vms.models import VirtualMachine
VirtualMachine.objects.filter(disks__pool__path={path!r}).delete()
for rows in (ImageAttachment, Volume):
    rows.objects.filter(pool__path={path!r}).delete()
PoolAttachment.objects.filter(path={path!r}).delete()
"""
LIES = (
    "SELECT p.path FROM hosts_poolattachment p JOIN vms_disk d ON d.pool_id = p.id WHERE d.machine_id = ?"
)
#: The guest writes a number to its disk, each greater by one, until it is told to stop.
WRITE = (
    "i=0; while [ ! -e /stop ]; do i=$((i+1)); echo $i > /told; /bin/busybox printf '%-512d' $i | "
    "/bin/busybox dd of=/dev/vda bs=512 seek=460800 count=1 conv=notrunc,fsync 2>/dev/null; done"
)
READ = (
    "touch /stop; /bin/busybox sleep 1; echo 3 > /proc/sys/vm/drop_caches; cat /told; "
    "/bin/busybox dd if=/dev/vda bs=512 skip=460800 count=1 2>/dev/null"
)


def test_a_template_and_five_machines_of_it(portal, sign_in, build):
    """Red when the template's image is offered to nobody, or of the five one is not begun."""
    machine = build()
    operator, admin = sign_in("operator"), sign_in("admin")
    operator.goto(f"{portal.url}/machines/{machine.pk}/")
    people.press(operator, "Force off")
    people.is_off(operator, 30)
    operator.get_by_role("link", name="Make a template").click()
    title = f"Tiny of {machine.name}"
    operator.get_by_label("Title").fill(title)
    operator.get_by_label("Description").fill("As it was left.")
    keep_picture(operator, "copies", "template")
    operator.get_by_role("button", name="Make the template").click()
    people.once(operator, "Succeeded", 60)
    keep_picture(operator, "copies", "templated")

    admin.goto(f"{portal.url}/machines/catalogue/admin/images/")
    admin.get_by_role("link", name=re.compile(title)).first.click()
    keep_picture(admin, "copies", "image")
    admin.get_by_role("link", name="Make an item of it").click()
    admin.fill("[name=name]", title)
    admin.get_by_label("Description").fill("Five of it, please.")
    admin.locator("[name=flavours]").first.check()
    admin.locator("[name=networks]").first.check()
    keep_picture(admin, "copies", "item")
    people.press(admin, "Add to the catalogue")

    page, approver, stem = sign_in("requester"), sign_in("approver"), people.new_name()
    page.goto(f"{portal.url}/machines/catalogue/")
    page.get_by_role("link", name=f"Ask for {title}").click()
    page.fill("[name=name]", stem)
    page.fill("[name=why]", "five of a kind")
    page.get_by_label("How many").fill(str(FIVE))
    keep_picture(page, "copies", "five")
    page.get_by_role("button", name="Send the request").click()
    page.wait_for_selector("text=Awaiting approval")
    asked = page.url
    approve(approver, f"Create {stem}-1 to {FIVE}")
    page.goto(asked)
    page.get_by_role("link", name="How far all of them are").click()
    keep_picture(page, "copies", "under-way")
    people.once(page, f"{FIVE} of {FIVE} done", 150)
    keep_picture(page, "copies", "done")
    found = portal.rows("SELECT uuid FROM vms_virtualmachine WHERE name LIKE ?", f"{stem}-%")
    assert len(found) == FIVE
    remove_domains({str(UUID(one)) for (one,) in found})


@pytest.fixture
def second_pool(portal, sign_in):
    """The path of another pool of this machine that an admin adds."""
    name, admin = f"gttest-{secrets.token_hex(3)}", sign_in("admin")
    path = f"{POOL_ROOT}/{name}"
    host = portal.one("SELECT id FROM hosts_host WHERE uri = ?", URI)
    admin.goto(f"{portal.url}/hosts/{host}/pools/add/")
    admin.fill("[name=name]", name)
    admin.get_by_label("Folder on the host").fill(path)
    keep_picture(admin, "copies", "pool")
    people.press(admin, "Add the pool")
    people.once(admin, "Succeeded", 60)
    yield path
    portal.shell(FORGET.format(path=path))
    driver = driver_for(URI)
    for volume in driver.list_volumes(name):
        driver.delete_volume(name, volume.name)
    driver.remove_pool(name)
    driver.close()


def test_a_disk_moves_while_its_guest_writes(portal, sign_in, second_pool, build):
    """Red when the guest's last writes stay behind, or the page does not say where the disk is."""
    machine, path = build(), second_pool
    driver, page = driver_for(URI), sign_in("operator")
    await_agent(driver, machine.uuid)
    inside(machine.uuid, "/bin/busybox", "sh", "-c", f"({WRITE}) >/dev/null 2>&1 </dev/null &")
    page.goto(f"{portal.url}/machines/{machine.pk}/disks/vda/")
    here = portal.one(LIES, machine.pk)
    there = portal.one("SELECT id FROM hosts_poolattachment WHERE path = ?", path)
    # New machines go where most room is: it may have been built in the new one.
    options = page.locator("[name=pool]")
    options.select_option(index=0) if here == path else options.select_option(str(there))
    keep_picture(page, "copies", "move")
    page.get_by_role("button", name="Move the disk").click()
    people.once(page, "Succeeded", 90)
    keep_picture(page, "copies", "moved")
    told, read = (int(word) for word in inside(machine.uuid, "/bin/busybox", "sh", "-c", READ).split())
    assert told == read > 1
    now = portal.one(LIES, machine.pk)
    assert now != here and path in {now, here}
    assert f"<source file='{now}/" in driver.definition(machine.uuid).running
    driver.close()
