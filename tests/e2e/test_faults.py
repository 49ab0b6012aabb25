"""Parts of the portal die while people work with it. Not for: hosts that die (test_host_faults.py)."""

import time

import pytest

from tests.e2e import people
from tests.e2e.portals import remove_domains, wait_until

pytestmark = pytest.mark.live
LOST = "Connection lost, showing what was last known."


def state_of(portal, name):
    """Return the state of the operation that builds a machine."""
    return portal.one("SELECT state FROM operations_operation WHERE title = ?", f"Create {name}")


def bar(page):
    """Return the words above the page when it lost its connection, '' while it has one."""
    return page.locator("#live-status:visible").all_inner_texts()


def test_redis_dies_while_a_request_is_approved(broken, sign_in):
    """Red when the live socket does not ask whether its bell rings."""
    name = people.new_name()
    sign_in.cut = True
    requester, approver = sign_in("requester"), sign_in("approver")
    address = people.ask(requester, name)
    broken.kill("redis")
    wait_until(lambda: bar(requester), 20, "the page says that it lost its connection")
    assert LOST in bar(requester)[0]
    people.approve(approver, address)
    assert "Approved" in approver.inner_text("#messages")
    assert state_of(broken, name) == "queued"
    # Pages are answered all the same.
    for path in ("/machines/", "/requests/", "/requests/inbox/"):
        assert approver.goto(broken.url + path).status == 200
    broken.mend()
    people.once(requester, "Succeeded", 60)
    wait_until(lambda: not bar(requester), 20, "the page has its connection again")


def test_a_worker_killed_while_it_builds(broken, sign_in):
    """Red when reap() takes nothing over: the page stays at the step where the worker died."""
    name = people.new_name()
    requester, approver = sign_in("requester"), sign_in("approver")
    people.approve(approver, people.ask(requester, name))
    operation = broken.one("SELECT id FROM operations_operation WHERE title = ?", f"Create {name}")
    begun = "SELECT count(*) FROM operations_steprecord WHERE operation_id = ?"
    wait_until(lambda: broken.one(begun, operation) >= 2, 30)
    broken.kill("worker")
    assert state_of(broken, name) == "running"
    broken.mend()
    back = time.monotonic()
    people.once(requester, "Succeeded", 60)
    assert time.monotonic() - back < 60


def test_the_web_process_dies_and_a_page_finds_its_way_back(broken, sign_in, build):
    """Red when live.js does not send its panels again after it connects again."""
    machine = build()
    sign_in.cut = True
    page = sign_in("requester")
    page.goto(f"{broken.url}/machines/{machine.pk}/")
    page.evaluate("() => { window.same = true }")
    people.once(page, "Running", 10)
    broken.kill("web")
    wait_until(lambda: bar(page), 10, "the page says that it lost its connection")
    # What happens meanwhile is seen by the watcher, and told to nobody.
    remove_domains({machine.uuid})
    seen = "SELECT observed_state FROM vms_virtualmachine WHERE id = ?"
    wait_until(lambda: broken.one(seen, machine.pk) == "missing", 20)
    broken.mend()
    people.once(page, "Missing", 30)
    wait_until(lambda: bar(page) == [], 10, "the bar goes")
    assert page.evaluate("() => window.same")


def test_a_browser_without_a_network_says_so_and_recovers(portal, sign_in, build):
    """Red when live.js hears only a socket that is closed: one that is cut is silent."""
    machine = build()
    sign_in.cut = True
    page = sign_in("requester")
    page.goto(f"{portal.url}/machines/{machine.pk}/")
    people.once(page, "Running", 10)
    page.context.set_offline(True)
    wait_until(lambda: bar(page), 10, "the page says that it lost its connection")
    remove_domains({machine.uuid})
    page.context.set_offline(False)
    people.once(page, "Missing", 30)
    assert bar(page) == []


def test_a_machine_that_vanished_is_missing_and_can_be_deleted(portal, sign_in, build):
    """Red when the observer leaves out _missing (the page goes on saying that it runs), or when force_off()
    takes a domain that is gone for a fault.
    """
    machine = build()
    page = sign_in("requester")
    page.goto(f"{portal.url}/machines/{machine.pk}/")
    remove_domains({machine.uuid})
    people.once(page, "Missing", 20)
    for label in ("Start", "Shut down", "Force off"):
        button = page.get_by_role("button", name=label, exact=True)
        assert button.is_disabled() and button.get_attribute("title") == "The machine is missing."
    # The console asks for its ticket, and is refused with a sentence.
    sign_in.cut = True
    page.goto(f"{portal.url}/machines/{machine.pk}/console/serial/")
    people.once(page, "does not know this machine any more", 20)
    for word in ("Delete", "Delete for good"):
        page.goto(f"{portal.url}/machines/{machine.pk}/")
        page.fill("[name=confirm_name]", machine.name)
        page.get_by_role("button", name=word, exact=True).click()
        title = f"{word} {machine.name}"
        ended = "SELECT state FROM operations_operation WHERE title = ?"
        wait_until(lambda: portal.one(ended, title) == "succeeded", 30, title)  # noqa: B023
    assert portal.rows("SELECT 1 FROM vms_virtualmachine WHERE id = ?", machine.pk) == []
    # Its requests and operations stay readable.
    old = portal.one("SELECT id FROM operations_operation WHERE title = ?", f"Create {machine.name}")
    assert page.goto(f"{portal.url}/requests/{old}/").status == 200
