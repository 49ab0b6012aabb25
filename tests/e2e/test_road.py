"""The road as people walk it: scripts/run, then ask, approve, build and sign in, in a real browser."""

import json
import re
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest
from playwright.sync_api import Page

from tests.e2e import people
from tests.e2e.portals import Portal, processes_of, running, wait_until

pytestmark = pytest.mark.live


def test_a_machine_is_asked_for_approved_built_and_answers_ssh(portal, sign_in, tmp_path):
    """Red when live.js shows nothing of what it hears, when the seed has no key, or when console-serial.js
    waits for nothing.
    """
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True)
    name = people.new_name()
    requester, approver = sign_in("requester"), sign_in("approver")
    address = people.ask(requester, name, ssh_keys=(tmp_path / "key.pub").read_text().strip())
    approver.reload()
    approver.get_by_role("link", name=f"Create {name}").click()
    approver.wait_for_url(address)
    approver.get_by_text("Give less", exact=True).click()
    approver.get_by_label("Lease in days").fill("3")
    approver.get_by_label("Note to who asked").fill("three will do")
    approver.get_by_role("button", name="Lower and approve").click()

    # Nobody touches the requester's page: it changes by itself.
    people.once(requester, "Succeeded", 120)
    assert requester.url == address
    requester.goto(f"{portal.url}/machines/")
    requester.get_by_role("link", name=name, exact=True).click()
    command = re.search(r"ssh (\S+)", requester.inner_text("#main")).group(1)
    assert answer_by_ssh(tmp_path / "key", command) == name
    # Its console opened late is black: the guest printed before, and waits at its prompt.
    requester.get_by_role("link", name="Serial console").click()
    people.once(requester, "press Enter", 10)
    requester.keyboard.press("Enter")
    requester.get_by_text("Connected", exact=True).wait_for(timeout=5000)
    _through_the_bin_and_back(portal, requester, name)
    [[sizes]] = portal.rows("SELECT spec FROM operations_operation WHERE title = ?", f"Create {name}")
    assert json.loads(sizes)["sizes"]["lease"] == 3 * 86400


def _through_the_bin_and_back(portal: Portal, page: Page, name: str) -> None:
    """Reboot a machine, shut it down, delete it, and have it back, by its page's buttons."""
    page.goto(f"{portal.url}/machines/")
    page.get_by_role("link", name=name, exact=True).click()
    people.press(page, "Reboot")
    _succeeds(portal, f"Reboot {name}")
    _shut_down(portal, page, name)
    page.fill("[name=confirm_name]", name)
    people.press(page, "Delete")
    _succeeds(portal, f"Delete {name}")
    page.goto(f"{portal.url}/machines/?bin=1")
    page.get_by_role("link", name=name, exact=True).click()
    people.press(page, "Take it out of the bin")
    people.press(page, "Start")
    people.once(page, "Running", 60)


def _shut_down(portal: Portal, page: Page, name: str) -> None:
    """Ask the guest to go off until it does: one that is in the middle of its start does not listen."""
    state = "SELECT observed_state FROM vms_virtualmachine WHERE name = ?"
    end = time.monotonic() + 90
    while portal.one(state, name) != "shutoff":
        assert time.monotonic() < end, "the guest does not go off"
        people.press(page, "Shut down")
        _succeeds(portal, f"Shut down {name}")
        with suppress(AssertionError):
            wait_until(lambda: portal.one(state, name) == "shutoff", 15)
    people.is_off(page, 10)


def _succeeds(portal: Portal, title: str) -> None:
    state = "SELECT state FROM operations_operation WHERE title = ?"
    wait_until(lambda: portal.one(state, title) == "succeeded", 60, title)


def answer_by_ssh(key: Path, target: str, question: str = "hostname") -> str:
    """Return what the guest answers; it may need a moment after its lease."""
    options = ["BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR"]
    flags = [part for option in [*options, "ConnectTimeout=5"] for part in ("-o", option)]
    for _ in range(20):
        done = subprocess.run(
            ["ssh", "-i", key, *flags, target, question], capture_output=True, text=True, check=False
        )
        if done.returncode == 0:
            break
        time.sleep(1)
    return done.stdout.strip()


def test_stop_ends_everything_that_run_started(tmp_path):
    """Red when is_up looks for the environment alone: Redis overwrites its own."""
    with running(tmp_path):
        assert any("redis" in line for line in processes_of(tmp_path))
    assert processes_of(tmp_path) == []
