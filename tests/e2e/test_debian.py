"""What the portal is for, once whole: five people, a real Debian, its consoles, its key, its trail."""

import os
import re
import subprocess
import time
from pathlib import Path
from uuid import UUID

import pytest
from playwright.sync_api import Page

from tests.e2e import people
from tests.e2e.portals import remove_domains
from tests.e2e.test_road import answer_by_ssh

pytestmark = pytest.mark.live
PICTURES = os.environ.get("GATEHOUSE_SCREENSHOTS")
#: Seconds that Debian gets under emulation with other tests beside it.
BOOT = 300.0
GREETING = 'Grüße: "two"\n  lines, one of them #indented'
#: What the requester gives of their own: nothing to download, so that it ends in time under emulation.
OWN = """#cloud-config
write_files:
- path: /srv/greeting
  permissions: '0640'
  content: |
    Grüße: "two"
      lines, one of them #indented
runcmd:
- [cp, /srv/greeting, /srv/greeting.ran]
"""


def picture(page: Page, name: str) -> None:
    """Keep what the page shows now, where somebody asked for pictures."""
    if PICTURES:
        page.screenshot(path=f"{PICTURES}/{name}.png")


@pytest.fixture(scope="module")
def key(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("ssh") / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return path


def ask_for_debian(page: Page, portal, name: str, key: Path) -> str:
    """Fill the form as a person would, and return the request's address."""
    page.goto(f"{portal.url}/machines/catalogue/")
    picture(page, "catalogue")
    page.get_by_role("link", name="Ask for Debian 12").click()
    page.fill("[name=name]", name)
    page.fill("[name=why]", "to see Debian come up")
    page.fill("[name=ssh_keys]", key.with_suffix(".pub").read_text().strip())
    page.get_by_text("Own user-data for cloud-init").click()
    page.fill("[name=user_data]", OWN)
    page.get_by_text("If you ask for this").wait_for()
    page.wait_for_timeout(1000)  # for the picture alone: the outlook follows what is typed
    picture(page, "ask")
    page.get_by_role("button", name="Send the request").click()
    page.wait_for_selector("text=Awaiting approval")
    return page.url


def approve(page: Page, address: str, name: str) -> None:
    page.reload()
    page.get_by_text(name).first.wait_for()
    picture(page, "inbox")
    page.goto(address)
    # What is decided on stands there whole.
    assert OWN.strip() in page.inner_text("#main")
    people.approve(page, address)


def see_the_login(page: Page, portal, machine: str) -> None:
    """Wait until the serial line shows Debian's login, then look at the screen."""
    page.goto(f"{portal.url}{machine}console/serial/")
    page.wait_for_selector("#main[data-state=open]", timeout=30_000)
    # The line shows what comes from now on: the prompt that stood there before needs a key to come again.
    page.keyboard.press("Enter")
    page.wait_for_function(
        """() => {
          const terminal = document.getElementById("main").terminal;
          if (!terminal) return false;
          const lines = terminal.buffer.active;
          for (let row = 0; row < lines.length; row++)
            if (/login:/.test(lines.getLine(row).translateToString())) return true;
          return false;
        }""",
        timeout=BOOT * 1000,
    )
    picture(page, "serial")
    page.goto(f"{portal.url}{machine}console/vnc/")
    page.wait_for_selector("#main[data-state=open]", timeout=30_000)
    # More than one colour: the guest's text is on the screen.
    page.wait_for_function(
        """() => {
          const canvas = document.querySelector("canvas");
          if (!canvas || !canvas.width) return false;
          const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
          const seen = new Set();
          for (let at = 0; at < data.length; at += 4) seen.add(data.slice(at, at + 3).join());
          return seen.size > 1;
        }""",
        timeout=30_000,
    )
    picture(page, "screen")


def answer_in_time(key: Path, command: str, question: str, wanted: str) -> str:
    """Ask until the guest says what is wanted, and return what it said last."""
    end = time.monotonic() + BOOT
    while (said := answer_by_ssh(key, command, question)) != wanted and time.monotonic() < end:
        time.sleep(2)
    return said


def download(page: Page, label: str) -> bytes:
    """Press a download's button on the trail and return the file."""
    with page.expect_download(timeout=120_000) as coming:
        page.get_by_role("button", name=label).first.click()
    return Path(coming.value.path()).read_bytes()


def test_five_people_and_a_debian(portal, sign_in, key):
    """A machine is asked for, approved, built, looked at, signed in to, and found in the trail.

    Red when the seed holds no key, when user_data() leaves the requester's own document out, when the
    approver is not shown it, when the broker opens no stream, or when the watcher writes nothing.
    """
    name = people.new_name()
    requester, approver = sign_in("requester"), sign_in("approver")
    address = ask_for_debian(requester, portal, name, key)
    approve(approver, address, name)
    requester.get_by_text("Clone the disk").first.wait_for()
    requester.wait_for_timeout(3000)  # for the picture alone
    picture(requester, "progress")
    people.once(requester, "Succeeded", BOOT)
    found = portal.rows("SELECT id, uuid FROM vms_virtualmachine WHERE name = ?", name)
    try:
        machine = f"/machines/{found[0][0]}/"
        requester.goto(portal.url + machine)
        people.once(requester, "Running", 30)
        picture(requester, "machine")
        command = re.search(r"ssh (?:-J \S+ )?(\S+@\d\S+)", requester.inner_text("#main")).group(1)
        see_the_login(requester, portal, machine)
        assert answer_in_time(key, command, "hostname", name) == name
        # Whoever may sign in finds the file: cloud-init writes files before it makes people.
        look = "sudo -n stat -c '%a %U' /srv/greeting && sudo -n cat /srv/greeting"
        assert answer_by_ssh(key, command, look) == f"640 root\n{GREETING}"

        operator = sign_in("operator")
        operator.goto(f"{portal.url}/hosts/")
        picture(operator, "hosts")
        operator.locator("#main a.row-name").first.click()
        operator.get_by_text(name).first.wait_for()
        picture(operator, "host")

        auditor = sign_in("auditor")
        auditor.goto(f"{portal.url}/audit/")
        picture(auditor, "trail")
        assert name in download(auditor, "CSV").decode()
        assert name in download(auditor, "JSON").decode()
        assert download(auditor, "PDF report").startswith(b"%PDF-")
        # Commands come last of all; the guest ran on while the others looked.
        assert answer_in_time(key, command, "sudo -n cat /srv/greeting.ran", GREETING) == GREETING
    finally:
        remove_domains({str(UUID(uuid)) for _pk, uuid in found})
