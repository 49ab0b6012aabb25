"""The road as people walk it: scripts/run, then ask, approve, build and sign in, in a real browser."""

import os
import re
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from portal.drivers.registry import driver_for

pytestmark = pytest.mark.live
ROOT = Path(__file__).resolve().parents[2]
IMAGES = Path(os.environ.get("GATEHOUSE_IMAGES", ROOT / "var/images"))
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
FLAGS += ["--disable-background-networking", "--disable-component-update"]


@dataclass
class Portal:
    """A portal that runs, and the passwords of its first accounts."""

    url: str
    passwords: dict[str, str]


def _script(name: str, env: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [ROOT / "scripts" / name, *arguments], env=env, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _environment(state: Path) -> dict[str, str]:
    """Return what a portal of its own needs: a state, a free port, a pool, and the images built already."""
    (state / "images").symlink_to(IMAGES)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    pool = f"/var/lib/libvirt/images/gttest-{secrets.token_hex(4)}"
    kept = {key: value for key, value in os.environ.items() if key != "DATABASE_URL"}
    return kept | {"GATEHOUSE_STATE": str(state), "PORT": port, "GATEHOUSE_POOL": pool}


def _remove_pool(path: str) -> None:
    """Remove what the portal built in its pool, machines first."""
    driver = driver_for("qemu:///system")
    pools = [pool for pool in driver.list_pools() if pool.path == path]
    for pool in pools:
        volumes = [volume.name for volume in driver.list_volumes(pool.name)]
        for info in driver.list_domains():
            if f"{info.name}-vda.qcow2" in volumes:
                driver.destroy(info.uuid)
                driver.undefine(info.uuid)
        for volume in volumes:
            driver.delete_volume(pool.name, volume)
        driver.remove_pool(pool.name)
    driver.close()


@pytest.fixture(scope="module")
def portal(tmp_path_factory) -> Iterator[Portal]:
    """A portal of its own, by the command that the README names."""
    state = tmp_path_factory.mktemp("state")
    env = _environment(state)
    try:
        _script("run", env, "--background")
        lines = (state / "credentials").read_text().splitlines()
        yield Portal(f"http://127.0.0.1:{env['PORT']}", dict(line.split(":", 1) for line in lines))
    finally:
        _script("stop", env)
        _remove_pool(env["GATEHOUSE_POOL"])


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
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


def _processes_of(state: str) -> list[str]:
    """Return the command lines of processes that name `state`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
        if state in line:
            found.append(line)
    return found


def test_stop_ends_everything_that_run_started(tmp_path):
    """Red when is_up looks for the environment alone: Redis overwrites its own."""
    env = _environment(tmp_path)
    try:
        _script("run", env, "--background")
        assert any("redis" in line for line in _processes_of(str(tmp_path)))
    finally:
        _script("stop", env)
        _remove_pool(env["GATEHOUSE_POOL"])
    assert _processes_of(str(tmp_path)) == []
