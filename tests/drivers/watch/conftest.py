"""Watches that end with the test, and a libvirtd of its own to stop or kill."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from portal.drivers.watch import Watch


class Daemon:
    """A libvirtd of its own, as an unprivileged user where we are root: stopping it disturbs nobody."""

    def __init__(self):
        run = subprocess.run(["mktemp", "-d", "/tmp/gh.XXXXXX"], capture_output=True, text=True, check=True)
        self.home = run.stdout.strip()
        if os.geteuid() == 0:
            os.chown(self.home, 65534, 65534)
        self.socket = f"{self.home}/libvirt/libvirt-sock"
        self.process = None

    def uri(self, scheme="test", path="default"):
        return f"{scheme}+unix:///{path}?socket={self.socket}"

    def start(self):
        command = ["libvirtd"]
        if os.geteuid() == 0:
            command = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", *command]
        home = {"HOME": self.home, "XDG_RUNTIME_DIR": self.home}
        home |= {"XDG_CONFIG_HOME": f"{self.home}/c", "XDG_CACHE_HOME": f"{self.home}/k"}
        if os.path.exists(self.socket):
            os.unlink(self.socket)
        with open(f"{self.home}/log", "a") as log:
            self.process = subprocess.Popen(
                command, env={**os.environ, **home}, cwd="/", stdout=log, stderr=log
            )
        end = time.monotonic() + 20
        while not os.path.exists(self.socket):
            assert time.monotonic() < end and self.process.poll() is None, Path(self.home, "log").read_text()
            time.sleep(0.05)

    def signal(self, number):
        os.kill(self.process.pid, number)
        if number == signal.SIGKILL:
            self.process.wait()

    def remove(self):
        self.process.kill()
        self.process.wait()
        subprocess.run(["rm", "-rf", self.home], check=True)


@pytest.fixture
def daemon():
    made = Daemon()
    made.start()
    yield made
    made.remove()


@pytest.fixture
def watching():
    watches = []

    def make(*uris, **options):
        watches.append(Watch(uris, **options))
        return watches[-1]

    yield make
    for watch in watches:
        watch.close()
