"""The main job without root: somebody with nothing but an account runs the portal and builds a machine."""

import hashlib
import json
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.portals import IMAGES, ROOT, free_port

pytestmark = pytest.mark.live
BUILD = """
import sys, time, uuid
from networks.models import Port
from portal.accounts.models import Project, User
from portal.operations.services import decide
from vms.models import CatalogueItem, VirtualMachine
from vms.services import Wish, request_machine

item = CatalogueItem.objects.get(image__name="tiny")
wish = Wish(item=item, flavour=item.flavours.first(), network=item.networks.get(), name=sys.argv[1],
            lease_days=1, why="to try it", user="root", ssh_keys=sys.argv[2])
people = {name: User.objects.get(username=name) for name in ("requester", "approver")}
asked = request_machine(
    actor=people["requester"], project=Project.objects.get(), wish=wish, token=uuid.uuid4()
)
asked = decide(actor=people["approver"], operation=asked, spec_hash=asked.spec_hash, approved=True)
while asked.state in ("queued", "running"):
    time.sleep(0.5)
    asked.refresh_from_db()
machine = VirtualMachine.objects.filter(name=sys.argv[1]).first()
port = Port.objects.get(domain_uuid=machine.uuid) if machine else None
print(asked.state, port.network.kind, port.ssh_port, machine.host.uri)
"""


@dataclass
class Somebody:
    """An account of this machine with a copy of the project."""

    name: str
    home: Path

    @property
    def checkout(self) -> Path:
        return self.home / "gatehouse"

    def run(self, *command: object, timeout: int = 300, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a command as this person, with nothing of root's environment."""
        own = {"HOME": str(self.home), "USER": self.name, "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", **env}
        return subprocess.run(
            ["setpriv", "--reuid", self.name, "--regid", self.name, "--init-groups", *map(str, command)],
            cwd=self.checkout,
            env=own,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )


def _copy(target: Path) -> None:
    """Copy what a clone has, and what its first run would fetch from the network."""
    files = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        check=True, capture_output=True, text=True,
    ).stdout.split("\0")
    for name in filter(None, files):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    shutil.copytree((ROOT / ".venv").resolve(), target / ".venv", symlinks=True)
    # The packages are those that this test runs with.
    texts = b"".join(path.read_bytes() for path in sorted(target.glob("requirements*.txt")))
    (target / ".venv/installed").write_text(f"requirements-dev.txt {hashlib.sha256(texts).hexdigest()}  -")
    if (ROOT / "var/assets").exists():
        shutil.copytree(ROOT / "var/assets", target / "var/assets")
    images = target / "var/images"
    images.mkdir(parents=True)
    entry = next(one for one in json.loads((IMAGES / "images.json").read_text()) if one["name"] == "tiny")
    shutil.copy2(IMAGES / entry["file"], images)
    (images / "images.json").write_text(json.dumps([entry]))


def _end_all(uid: int) -> None:
    """Kill what runs as the account that the test made, by process id."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if entry.stat().st_uid == uid:
                os.kill(int(entry.name), signal.SIGKILL)
        except (FileNotFoundError, ProcessLookupError):
            continue


@pytest.fixture
def somebody() -> Iterator[Somebody]:
    """An account made for the test, in no group but its own."""
    name = f"gttest{secrets.token_hex(3)}"
    subprocess.run(["useradd", "--create-home", "--shell", "/bin/bash", name], check=True)
    account = pwd.getpwnam(name)
    try:
        person = Somebody(name, Path(account.pw_dir))
        _copy(person.checkout)
        subprocess.run(["chown", "-Rh", f"{name}:{name}", person.home], check=True)
        yield person
    finally:
        _end_all(account.pw_uid)
        time.sleep(0.5)
        subprocess.run(["userdel", "--remove", name], check=True, capture_output=True)


def test_somebody_without_root_builds_a_machine_and_signs_in(somebody):
    """Red when session_host enrols nothing, the network needs a bridge, or the port leads nowhere."""
    port = str(free_port())
    done = somebody.run("scripts/run", "--background", PORT=port)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"machines run as {somebody.name}" in done.stdout
    assert "each machine gets a network of its own" in done.stdout
    try:
        made = somebody.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", somebody.home / "key")
        assert made.returncode == 0, made.stderr
        key = (somebody.home / "key.pub").read_text().strip()
        (somebody.checkout / "var/build.py").write_text(BUILD)
        ran = somebody.run(
            ".venv/bin/python", "-c",
            "import os, django; os.environ['DJANGO_SETTINGS_MODULE'] = 'portal.settings'; django.setup();"
            "import portal.celery; exec(open('var/build.py').read())",
            "first-vm", key,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        state, kind, ssh_port, uri = ran.stdout.split()
        assert (state, kind, uri) == ("succeeded", "user", "qemu:///session")
        assert _ssh(somebody, ssh_port) == "first-vm"
    finally:
        stopped = somebody.run("scripts/stop")
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr


def _ssh(somebody: Somebody, port: str) -> str:
    options = ["BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null"]
    flags = [part for option in options for part in ("-o", option)]
    for _ in range(20):
        target = ("-p", port, "root@127.0.0.1", "hostname")
        done = somebody.run("ssh", "-i", somebody.home / "key", *flags, *target)
        if done.returncode == 0:
            return done.stdout.strip()
        time.sleep(1)
    return done.stderr
