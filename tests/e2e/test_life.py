"""What becomes of machines in the browser: one made elsewhere is adopted, one is cloned, a lease runs out."""

import secrets
import uuid
from collections import Counter as Lines
from datetime import date, timedelta

import pytest

from tests.e2e import people
from tests.e2e.portals import remove_domains, wait_until
from tests.e2e.test_accessibility import keep_picture
from tests.e2e.test_changes import approve
from tests.e2e.test_settings import virsh
from tests.vms.adoption.test_adoption_live import MADE

pytestmark = pytest.mark.live
#: The lease of one machine, as the database would have it after so many days (negative: they are over).
ENDS = """
from datetime import timedelta
from django.utils import timezone
from vms.models import VirtualMachine
VirtualMachine.objects.filter(pk={pk}).update({field}=timezone.now() + timedelta(days={days}))
"""
LEASE = "SELECT lease_until FROM vms_virtualmachine WHERE id = ?"


@pytest.fixture
def made_by_virsh(tmp_path):
    """A running domain that the portal had no part in, its name and UUID; removed in the end."""
    own = str(uuid.uuid4())
    name = f"gttest-by-hand-{own[:6]}"
    text = MADE.format(name=name, uuid=own, mac=f"52:54:00:ff:{own[:2]}:{own[2:4]}")
    (tmp_path / "made.xml").write_text(text)
    virsh("define", str(tmp_path / "made.xml"))
    virsh("start", own)
    yield name, own
    remove_domains({own})


def lines(domain: str) -> Lines:
    return Lines(line.strip() for line in virsh("dumpxml", "--inactive", domain).splitlines())


def test_a_machine_made_by_virsh_is_adopted_and_edited(portal, sign_in, made_by_virsh):
    """Red when adopting writes to the host, or an edit loses a line of what the portal does not know."""
    name, own = made_by_virsh
    before = lines(own)
    page = sign_in("admin")
    page.goto(f"{portal.url}/machines/found/")
    wait_until(lambda: page.reload() and page.get_by_role("link", name=name).count(), 30, "it was found")
    keep_picture(page, "life", "found")
    page.get_by_role("link", name=f"Adopt {name}").click()
    called = f"gttest-{secrets.token_hex(3)}"
    page.get_by_label("Name").fill(called)
    page.get_by_label("Project").select_option(index=1)
    keep_picture(page, "life", "adopt")
    page.get_by_role("button", name="Adopt").click()
    people.once(page, "Succeeded", 60)
    assert lines(own) == before

    pk = portal.one("SELECT id FROM vms_virtualmachine WHERE name = ?", called)
    page.goto(f"{portal.url}/machines/{pk}/")
    people.once(page, "Running", 10)
    keep_picture(page, "life", "adopted")
    page.get_by_role("link", name="Settings", exact=True).click()
    page.get_by_label("Clock").select_option("localtime")
    page.get_by_role("button", name="Change the settings").click()
    people.once(page, "Succeeded", 30)
    after = lines(own)
    assert list((before - after).elements()) == ["<clock offset='utc'/>"]
    assert list((after - before).elements()) == ["<clock offset='localtime'/>"]

    # Somebody makes it larger by other means, and the portal counts that once it is told to.
    virsh("setmaxmem", own, "96M", "--config")
    kept = "SELECT memory FROM vms_virtualmachine WHERE id = ?"
    page.goto(f"{portal.url}/machines/{pk}/")
    page.get_by_role("link", name="Look again").click()
    looked = page.url
    wait_until(lambda: page.goto(looked) and page.locator(".differences").count(), 30, "the change is seen")
    keep_picture(page, "life", "look-again")
    assert portal.one(kept, pk) == 64 << 20
    people.press(page, "Write it down")
    wait_until(lambda: portal.one(kept, pk) == 96 << 20, 30, "it is written down")

    after = lines(own)
    page.goto(f"{portal.url}/machines/{pk}/")
    page.locator("form[action$='/release/'] [name=confirm_name]").fill(called)
    keep_picture(page, "life", "release")
    people.press(page, "Release")
    wait_until(lambda: not portal.rows(kept, pk), 30, "it is the portal's no more")
    assert lines(own) == after and virsh("domstate", own).strip() == "running"
    page.goto(f"{portal.url}/machines/found/")
    wait_until(lambda: page.reload() and page.get_by_role("link", name=name).count(), 30, "it is found again")


def test_a_machine_is_cloned_in_the_browser(portal, sign_in, build):
    """Red when the copy is no machine of its own: another UUID, another card, a guest that starts."""
    machine = build()
    page, approver = sign_in("requester"), sign_in("approver")
    page.goto(f"{portal.url}/machines/{machine.pk}/")
    people.press(page, "Force off")
    people.is_off(page, 30)
    page.get_by_role("link", name="Clone").click()
    copy = people.new_name()
    page.get_by_label("Name").fill(copy)
    page.get_by_label("What for").fill("the same once more")
    keep_picture(page, "life", "clone")
    page.get_by_role("button", name="Ask for the clone").click()
    approve(approver, f"Clone {machine.name} as {copy}")
    people.once(page, "Succeeded", 90)
    found = portal.rows("SELECT id, uuid FROM vms_virtualmachine WHERE name = ?", copy)[0]
    own = str(uuid.UUID(found[1]))
    try:
        page.goto(f"{portal.url}/machines/{found[0]}/")
        keep_picture(page, "life", "cloned")
        people.press(page, "Start")
        people.once(page, "Running", 30)
        card = "SELECT mac FROM networks_port WHERE domain_uuid = ?"
        assert portal.one(card, uuid.UUID(own).hex) != portal.one(card, uuid.UUID(machine.uuid).hex)
        assert own != machine.uuid
    finally:
        remove_domains({own})


def test_a_lease_runs_out(portal, sign_in, build):
    """Red when the scheduler leaves a machine on whose lease is over, or people are not told of it."""
    machine = build()
    page = sign_in("requester")
    page.goto(f"{portal.url}/machines/{machine.pk}/")
    portal.shell(ENDS.format(pk=machine.pk, field="lease_until", days=0.9))
    portal.shell("from vms.tasks import keep_leases; keep_leases()")
    page.reload()
    keep_picture(page, "life", "lease-ends-soon")
    before = portal.one(LEASE, machine.pk)
    page.get_by_role("link", name="Extend").click()
    page.get_by_label("Days to add").fill("10")
    page.get_by_label("What is it still for?").fill("not done yet")
    keep_picture(page, "life", "lease-extend")
    people.press(page, "Send the request")
    people.approve(sign_in("approver"), page.url)
    people.once(page, "Succeeded", 30)
    assert portal.one(LEASE, machine.pk)[:10] == str(date.fromisoformat(before[:10]) + timedelta(days=10))
    page.goto(f"{portal.url}/machines/{machine.pk}/")
    assert page.get_by_text("Lease ends soon").count() == 0
    portal.shell(ENDS.format(pk=machine.pk, field="lease_until", days=-0.001))
    portal.shell("from vms.tasks import keep_leases; keep_leases()")
    people.is_off(page, 60)
    page.reload()
    keep_picture(page, "life", "lease-ended")
    assert page.get_by_role("button", name="Start", exact=True).is_disabled()
    page.goto(f"{portal.url}/accounts/notices/")
    people.once(page, f"The lease of {machine.name} ended.", 5)
    people.once(page, f"The lease of {machine.name} ends in 1 day.", 5)
    portal.shell(ENDS.format(pk=machine.pk, field="lease_bin_at", days=-0.001))
    page.goto(f"{portal.url}/machines/{machine.pk}/")
    portal.shell("from vms.tasks import keep_leases; keep_leases()")
    people.once(page, "In the bin", 60)
    keep_picture(page, "life", "lease-binned")
