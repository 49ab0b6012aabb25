"""A network with real hosts in it: each a libvirtd and an SSH server in namespaces of their own. Needs root.

    with Lab() as lab:
        host = lab.host()
        host.authorize(public_key)          # or for an account: authorize(key, "gate")
        host.uri()                          # qemu+ssh://root@10.214.7.1/system

Up in about two seconds. Each run has names, addresses and a folder of its own, so that runs do not meet. All
of it ends with the process that made it, also when that is killed; folders and control groups that such a run
left are removed by the next one. To try by hand: `python -m tests.secondhost`.
"""

import fcntl
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Self

from tests.secondhost.files import add_to_group, fingerprint, new_host_key, write_files

INIT = Path(__file__).with_name("init.sh")
PREFIX = "gth-"
LIMIT = 30.0
NAMESPACES = "--mount --uts --ipc --net --pid --cgroup --fork --kill-child=KILL"


def wait_for(what: Callable[[], bool], why: Callable[[], str] = lambda: "", limit: float = LIMIT) -> None:
    """Wait until `what()` is true. Raises TimeoutError with what `why()` tells."""
    end = time.monotonic() + limit
    while not what():
        if time.monotonic() > end:
            raise TimeoutError(f"not in {limit:g} s: {why()}")
        time.sleep(0.02)


def run(*command: str | Path) -> str:
    """Run a program and return what it printed. Raises CalledProcessError."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _processes(name: str) -> list[int]:
    """Return the processes of a name."""
    found = []
    for folder in Path("/proc").iterdir():
        with suppress(OSError):
            if folder.name.isdigit() and (folder / "comm").read_text().strip() == name:
                found.append(int(folder.name))
    return found


def _numbers(pid: int) -> list[str]:
    """Return what a process is numbered in each of its namespaces, the innermost last."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.split()[1:] for line in lines if line.startswith("NSpid:"))


def _control_groups() -> list[Path]:
    """Return where control groups are mounted: one place for version 2, several for version 1."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    first = [Path(at) for _, at, kind, *_ in mounts if kind == "cgroup"]
    return first or [Path(at) for _, at, kind, *_ in mounts if kind == "cgroup2"]


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1)
        try:
            client.connect(str(path))
        except OSError:
            return False
    return True


class SecondHost:
    """One host. It is up after `Lab.host`; whatever is done to it can be taken back."""

    def __init__(self, lab: "Lab", number: int) -> None:
        self.name = f"{lab.name}-{number}"
        self.folder = lab.folder / str(number)
        self.address = f"{lab.network}.{number}"
        self._lab = lab
        self._port = f"{lab.name}p{number}"
        # The same after a power cut: neighbours remember an address for a while.
        self._mac = f"52:54:00:{secrets.token_hex(1)}:00:{number:02x}"
        self._orders: IO[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._pid = 0

    def uri(self, user: str = "root") -> str:
        """Return the address to enrol the host by."""
        return f"qemu+ssh://{user}@{self.address}/system"

    @property
    def local_uri(self) -> str:
        """The host's libvirtd without SSH, for a test that looks or cleans up behind the portal's back."""
        return f"qemu+unix:///system?socket={self.folder}/run/libvirt/libvirt-sock"

    @property
    def fingerprint(self) -> str:
        """The host key's fingerprint, as ssh and the portal write it."""
        return fingerprint(self.folder)

    def authorize(self, public_key: str, user: str = "root") -> None:
        """Let the holder of a key sign in as `user`: root, gate (in group libvirt) or stranger."""
        with (self.folder / "etc/ssh/authorized" / user).open("a") as keys:
            keys.write(public_key.strip() + "\n")

    def forbid(self, user: str = "root") -> None:
        """Forget every key of `user`."""
        (self.folder / "etc/ssh/authorized" / user).unlink(missing_ok=True)

    def add_to_group(self, user: str, group: str) -> None:
        """Make a user a member of a group, from the next sign-in on."""
        add_to_group(self.folder, user, group)

    def power_on(self) -> None:
        """Start the host, with the disks and definitions that it had. Returns when it can be reached."""
        write_files(self.folder, self.name, self.address)
        # Memory, on a real host: nothing there outlives it.
        shutil.rmtree(self.folder / "run", ignore_errors=True)
        log = (self.folder / "log").open("ab")
        with log:
            self._process = subprocess.Popen(
                # The shell enters the control groups before they become the host's roots.
                ["bash", "-c", 'for g in "${@:2}"; do echo $$ >"$g/cgroup.procs"; done; '
                 f'exec unshare {NAMESPACES} bash "{INIT}" "{self.folder}" "{self.name}"',
                 "bash", self._lab.name, *self._make_groups()],
                stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True, cwd="/",
            )
        self._orders = self._process.stdin
        wait_for(lambda: bool(self._first_process()), self.log)
        self._lab.plug_in(self._port, self._pid, self.address, self._mac)
        self._wait_until_up()

    def _make_groups(self) -> list[str]:
        made = []
        for root in _control_groups():
            group = root / self._lab.name / self.folder.name
            group.mkdir(parents=True, exist_ok=True)
            for name in ("cpuset.cpus", "cpuset.mems"):
                # A group of this kind takes nobody before it is told what it may use.
                for part in (group.parent, group):
                    if root.name == "cpuset":
                        (part / name).write_text((part.parent / name).read_text())
            made.append(str(group))
        return made

    def _first_process(self) -> int:
        assert self._process is not None
        with suppress(FileNotFoundError):
            told = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
            if told and Path(f"/proc/{told[0]}/comm").read_text().strip() == "bash":
                self._pid = int(told[0])
        return self._pid

    def _wait_until_up(self) -> None:
        wait_for(lambda: _answers(self.folder / "run/libvirt/libvirt-sock"), self.log)
        wait_for(self._ssh_answers, self.log)

    def _ssh_answers(self) -> bool:
        with suppress(OSError), socket.create_connection((self.address, 22), timeout=1) as client:
            return client.recv(4) == b"SSH-"
        return False

    def log(self) -> str:
        """Return what the host's first process and its daemons said."""
        return (self.folder / "log").read_text(errors="replace")

    def _order(self, word: str) -> None:
        assert self._orders is not None
        self._orders.write(word.encode() + b"\n")
        self._orders.flush()

    def kill_libvirtd(self) -> None:
        """End libvirtd as by kill -9; guests stay."""
        self._order("libvirtd-kill")
        wait_for(lambda: not _answers(self.folder / "run/libvirt/libvirt-sock"))

    def kill_libvirtd_at(self, moment: Callable[[], bool], limit: float = LIMIT) -> bool:
        """End libvirtd like `kill_libvirtd` at the `moment`, for which this looks without a pause.

        Tell whether that came within the `limit`.
        """
        inside, end = (self.folder / "run/libvirtd.pid").read_text().strip(), time.monotonic() + limit
        [pid] = [one for one in _processes("libvirtd") if _numbers(one)[-1] == inside and self._has(one)]
        while not moment():
            if time.monotonic() > end:
                return False
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not Path(f"/proc/{pid}").exists())
        return True

    def _has(self, pid: int) -> bool:
        """Tell whether a process is this host's."""
        return os.readlink(f"/proc/{pid}/ns/pid") == os.readlink(f"/proc/{self._pid}/ns/pid")

    def start_libvirtd(self) -> None:
        """Start what does not run of the daemons."""
        self._order("start")
        self._wait_until_up()

    def freeze_libvirtd(self) -> None:
        """Stop libvirtd (SIGSTOP): it keeps its sockets and answers nobody."""
        self._order("libvirtd-stop")

    def thaw_libvirtd(self) -> None:
        """Let libvirtd go on (SIGCONT)."""
        self._order("libvirtd-continue")

    def unplug(self) -> None:
        """Pull the network cable."""
        self._lab.inside("ip", "link", "set", self._port, "down")

    def plug(self) -> None:
        """Put the network cable back."""
        self._lab.inside("ip", "link", "set", self._port, "up")

    def change_host_key(self) -> None:
        """Start the host anew with another host key, as a new installation under the old address has."""
        self.power_cut()
        new_host_key(self.folder)
        self.power_on()

    def run(self, *command: str | Path) -> str:
        """Run a program in the host, as root, and return what it printed. Raises CalledProcessError."""
        return run("nsenter", "-t", str(self._pid), "-m", "-u", "-i", "-n", "-p", "-C", "--", *command)

    def power_cut(self) -> None:
        """Kill the host with everything that runs on it, at once. Idempotent; `power_on` starts it again."""
        if self._process is None:
            return
        # The parent of process 1 ends by itself when that is gone.
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        if self._orders is not None:
            self._orders.close()
        self._process.wait()
        self._process, self._pid = None, 0


class Lab:
    """A switch, this machine's place at it, and hosts. Made by `with`; everything goes when that ends."""

    def __init__(self) -> None:
        sweep()
        self.folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        self.folder.chmod(0o755)  # guests run as libvirt-qemu and must reach their disks
        self.name = f"gt{secrets.token_hex(3)}"
        (self.folder / "name").write_text(self.name)
        self._lock = _lock(self.folder)
        self.hosts: list[SecondHost] = []
        self._switch = subprocess.Popen(
            ["unshare", "--net", "--kill-child=KILL", "--fork", "cat"], stdin=subprocess.PIPE,
            start_new_session=True,
        )
        self.network = self._make_network()

    def _make_network(self) -> str:
        """Join this machine to the switch at the address .254 of a network that nobody here uses."""
        children = Path(f"/proc/{self._switch.pid}/task/{self._switch.pid}/children")
        wait_for(lambda: bool(children.read_text().strip()))
        self._inside = children.read_text().split()[0]
        port = f"{self.name}c"
        run("ip", "link", "add", port, "type", "veth", "peer", "name", "client", "netns", self._inside)
        self.inside("ip", "link", "add", "switch", "type", "bridge")
        self.inside("ip", "link", "set", "switch", "up")
        self.inside("ip", "link", "set", "client", "master", "switch", "up")
        used = run("ip", "-4", "-o", "addr") + run("ip", "-4", "route")
        free = [f"10.214.{number}" for number in range(256) if f"10.214.{number}." not in used]
        network = random.choice(free)
        run("ip", "addr", "add", f"{network}.254/24", "dev", port)
        run("ip", "link", "set", port, "up")
        return network

    def inside(self, *command: str) -> str:
        """Run a program in the switch's network namespace."""
        return run("nsenter", "-t", self._inside, "-n", "--", *command)

    def plug_in(self, port: str, pid: int, address: str, mac: str) -> None:
        """Lay a cable from the switch to the host whose first process is `pid`."""
        with suppress(subprocess.CalledProcessError):
            self.inside("ip", "link", "del", port)
        self.inside("ip", "link", "add", port, "type", "veth", "peer", "name", "uplink", "address", mac,
                    "netns", str(pid))
        self.inside("ip", "link", "set", port, "master", "switch", "up")
        host = ["nsenter", "-t", str(pid), "-n", "--"]
        run(*host, "ip", "addr", "add", f"{address}/24", "dev", "uplink")
        run(*host, "ip", "link", "set", "uplink", "up")
        run(*host, "sysctl", "-qw", "net.ipv4.ip_forward=1")

    def host(self) -> SecondHost:
        """Start one more host and return it once it can be reached."""
        made = SecondHost(self, len(self.hosts) + 1)
        self.hosts.append(made)
        made.power_on()
        return made

    def close(self) -> None:
        """End every host and the switch and remove what they left. Idempotent."""
        for host in self.hosts:
            host.power_cut()
        if self._switch.stdin is not None:
            self._switch.stdin.close()
        self._switch.wait()
        _remove(self.folder)
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _lock(folder: Path) -> IO[str]:
    """Hold `folder` for this process. Raises BlockingIOError when another one has it."""
    handle = (folder / "lock").open("w")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.close()
        raise
    return handle


def _remove(folder: Path) -> None:
    """Remove a run's control groups and its folder; its processes are gone or going."""
    name = (folder / "name").read_text()
    for root in _control_groups():
        groups = sorted((root / name).glob("**/"), key=lambda path: len(path.parts), reverse=True)
        for group in groups:
            end = time.monotonic() + 5
            while group.exists() and time.monotonic() < end:
                with suppress(OSError):
                    group.rmdir()
                    break
                time.sleep(0.05)
    with suppress(subprocess.CalledProcessError):
        run("ip", "link", "del", f"{name}c")
    shutil.rmtree(folder, ignore_errors=True)


def sweep() -> None:
    """Remove what runs left that are over."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        if not (folder / "name").exists() or not (folder / "lock").exists():
            continue  # being made at this moment, or being removed
        with suppress(BlockingIOError, FileNotFoundError), _lock(folder):
            _remove(folder)
