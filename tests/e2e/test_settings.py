"""What a machine is set to, changed in the browser, seen on the host, and changed by virsh meanwhile."""

import subprocess

import pytest

from tests.e2e import people
from tests.e2e.portals import wait_until
from tests.e2e.test_accessibility import keep_picture

pytestmark = pytest.mark.live
URI = "qemu:///system"


def virsh(*words: str) -> str:
    done = subprocess.run(["virsh", "-q", "-c", URI, *words], capture_output=True, text=True, check=True)
    return done.stdout


def test_settings_are_changed_seen_on_the_host_and_not_overwritten(portal, sign_in, build):
    """Red when the watcher reads no definitions, or the page takes what it showed for what is so."""
    machine = build()
    page, address = sign_in("requester"), f"{portal.url}/machines/{machine.pk}/"
    page.goto(address)
    page.get_by_role("link", name="Settings", exact=True).click()
    page.get_by_label("Description").fill("Tries things\n<out>")
    page.get_by_label("Starts from").select_option("cdrom")
    page.get_by_label("When the guest hangs").select_option("reset")
    page.get_by_role("button", name="Change the settings").click()
    people.once(page, "Succeeded", 30)
    people.once(page, "Disk → CD", 5)
    defined = virsh("dumpxml", "--inactive", machine.uuid)
    assert "<boot dev='cdrom'/>\n    <boot dev='hd'/>" in defined and "action='reset'" in defined
    assert "<description>Tries things\n&lt;out&gt;</description>" in defined
    # The watchdog came at once, and what it starts from did not.
    running = virsh("dumpxml", machine.uuid)
    assert "action='reset'" in running and "<boot dev='cdrom'/>" not in running
    page.goto(f"{address}settings/")
    people.once(page, "At the next start", 5)
    keep_picture(page, "settings", "waiting")

    # Somebody else is on the host while the page is open.
    virsh("desc", machine.uuid, "--config", "by hand")
    seen = "SELECT observed_persistent FROM vms_definition WHERE uuid = ?"
    wait_until(lambda: "by hand" in portal.one(seen, machine.uuid.replace("-", "")), 30, "the watcher saw it")
    # The browser says on its console what a refused form was answered with.
    sign_in.cut = True
    page.get_by_label("Clock").select_option("localtime")
    page.get_by_role("button", name="Change the settings").click()
    people.once(page, "Somebody changed this while you looked", 5)
    keep_picture(page, "settings", "clash")
    assert "offset='utc'" in virsh("dumpxml", "--inactive", machine.uuid)

    page.goto(address)
    people.press(page, "Force off")
    people.is_off(page, 30)
    people.press(page, "Start")
    people.once(page, "Running", 30)
    assert "action='reset'" in virsh("dumpxml", machine.uuid)
    page.goto(f"{address}settings/")
    wait_until(
        lambda: page.reload() and not page.get_by_text("At the next start").count(), 20, "all of it runs"
    )

    # What somebody thinks better of is set back before it ever counted. libvirt may order what it tells
    # otherwise once the machine runs, which makes it another definition: that one must be on the page.
    ran = "SELECT observed_running FROM vms_definition WHERE uuid = ?"
    own = machine.uuid.replace("-", "")
    wait_until(lambda: "reset" in (portal.one(ran, own) or ""), 30, "the watcher saw it run")
    page.reload()
    page.get_by_label("Clock").select_option("localtime")
    page.get_by_role("button", name="Change the settings").click()
    people.once(page, "Succeeded", 30)
    assert "offset='localtime'" in virsh("dumpxml", "--inactive", machine.uuid)
    page.goto(address)
    people.once(page, "1 thing changes", 5)
    page.get_by_role("link", name="1 thing changes").click()
    people.once(page, "UTC, as Linux expects", 5)
    people.press(page, "Set these settings back")
    people.once(page, "Succeeded", 30)
    assert "offset='utc'" in virsh("dumpxml", "--inactive", machine.uuid)
    page.goto(f"{address}settings/")
    assert not page.get_by_text("At the next start").count()
