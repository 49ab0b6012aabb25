"""The road as people walk it: scripts/run, then ask, approve, build and sign in, in a real browser."""

import re
import subprocess
import time
from pathlib import Path

import pytest

from tests.e2e import people
from tests.e2e.portals import processes_of, running

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
    approver.get_by_role("button", name="Approve", exact=True).click()

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
