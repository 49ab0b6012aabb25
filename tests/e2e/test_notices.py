"""The bell, a notice and its mail, and what is left of a quota, as people see them change."""

import email
import email.policy
import time

import pytest

from tests.e2e import people

pytestmark = pytest.mark.live


def bell(page):
    """Return how many unread notices the bell counts now."""
    counts = page.locator(".bell-count")
    return int(counts.inner_text()) if counts.count() else 0


def rings(page, more_than, limit=10):
    """Wait until the bell counts more, without a reload."""
    page.wait_for_function(
        "before => Number(document.querySelector('.bell-count')?.textContent ?? 0) > before",
        arg=more_than,
        timeout=limit * 1000,
    )


def mails_to(state, address, limit=40):
    """Return the mails to `address`, which a worker writes after the commit; wait until there is one."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        texts = [path.read_text() for path in (state / "mail").glob("*.log")]
        whole = [part.strip() for text in texts for part in text.split("-" * 79)]
        found = [email.message_from_string(part, policy=email.policy.default) for part in whole if part]
        if mine := [mail for mail in found if mail["To"] == address]:
            return mine
        time.sleep(0.2)
    return []


def test_who_decides_and_who_asked_are_told_without_a_reload(portal, sign_in):
    """Red when notify() rings no bell."""
    requester, approver = sign_in("requester"), sign_in("approver")
    requester.goto(f"{portal.url}/accounts/profile/")
    requester.fill("[name=email]", "requester@example.org")
    requester.fill("[name=password]", portal.passwords["requester"])
    requester.get_by_role("button", name="Save").click()
    requester.goto(f"{portal.url}/machines/")
    assert "left" in requester.locator("[data-live^='operations.left']").first.inner_text()
    before = bell(approver)
    name = people.new_name()
    address = people.ask(requester, name)

    rings(approver, before)
    approver.locator("#bell").click()
    approver.get_by_role("link", name=f"requester asks: Create {name}").click()
    approver.wait_for_url(address)
    assert bell(approver) == before
    told = bell(requester)
    approver.fill("[name=reason]", "not this week")
    approver.get_by_role("button", name="Reject", exact=True).click()

    rings(requester, told)
    requester.locator("#bell").click()
    notice = requester.locator(".notice", has_text=f"approver rejected: Create {name}")
    assert "not this week" in notice.inner_text()
    mail = mails_to(portal.state, "requester@example.org")[-1]
    assert mail["Subject"] == f"[Gatehouse] approver rejected: Create {name}"
    assert address in mail.get_content() and "not this week" in mail.get_content()
