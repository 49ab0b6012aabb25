"""The road as people walk it: scripts/run, then ask, approve, build and sign in, in a real browser."""

import re
import secrets
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.e2e.portals import CHROMIUM, FLAGS, Portal, processes_of, running

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def portal(tmp_path_factory) -> Iterator[Portal]:
    """A portal of its own, by the command that the README names."""
    with running(tmp_path_factory.mktemp("state")) as portal:
        yield portal


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def sign_in(portal, browser):
    """Sign somebody in; a script error or a blocked resource on any page fails the test."""
    complaints: list[str] = []

    def sign_in(who: str) -> Page:
        page = browser.new_context().new_page()
        page.on("console", lambda message: message.type == "error" and complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(portal.url)
        page.fill("[name=login]", who)
        page.fill("[name=password]", portal.passwords[who])
        page.keyboard.press("Enter")
        page.wait_for_selector("#main")
        return page

    yield sign_in
    assert not complaints


def test_a_machine_is_asked_for_approved_built_and_answers_ssh(portal, sign_in, tmp_path):
    """Untried: when decide() does not dispatch, or the live socket sends nothing, or the seed has no key."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True)
    name = f"gttest-{secrets.token_hex(3)}"
    requester = sign_in("requester")
    requester.goto(f"{portal.url}/machines/catalogue/")
    requester.get_by_role("link", name="Ask for Tiny Linux").click()
    requester.fill("[name=name]", name)
    requester.fill("[name=why]", "to try it")
    requester.fill("[name=ssh_keys]", (tmp_path / "key.pub").read_text().strip())
    requester.get_by_role("button", name="Send the request").click()
    requester.wait_for_selector("text=Awaiting approval")

    approver = sign_in("approver")
    approver.get_by_role("link", name=f"Create {name}").click()
    approver.get_by_role("button", name="Approve", exact=True).click()

    # Nobody touches the requester's page: it changes by itself.
    requester.get_by_text("Succeeded").wait_for(timeout=120_000)
    requester.goto(f"{portal.url}/machines/")
    requester.get_by_role("link", name=name, exact=True).click()
    command = re.search(r"ssh (\S+)", requester.inner_text("#main")).group(1)
    assert _ssh(tmp_path / "key", command) == name


def _ssh(key: Path, target: str) -> str:
    """Return the guest's host name; the guest may need a moment after its lease."""
    options = ["BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR"]
    flags = [part for option in [*options, "ConnectTimeout=5"] for part in ("-o", option)]
    for _ in range(20):
        done = subprocess.run(
            ["ssh", "-i", key, *flags, target, "hostname"], capture_output=True, text=True, check=False
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
