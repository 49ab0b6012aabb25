"""What a host's kernel is set to, which libvirt does not tell: read from files. Not for: changing any of it.

Of a further host the files come by SFTP with the portal's own SSH, which needs no shell there; where the host
offers no SFTP, nothing is known and nothing fails.
"""

import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from portal.drivers import ssh
from portal.drivers.errors import NotSupported
from portal.drivers.libvirt.connection import is_local
from portal.drivers.types import KernelFacts

#: What it is called here -> where it lies on a host.
_FILES = {
    "mounts": "/proc/self/mounts",
    "controllers": "/sys/fs/cgroup/cgroup.controllers",
    "forward": "/proc/sys/net/ipv4/ip_forward",
    "bridge": "/proc/sys/net/bridge/bridge-nf-call-iptables",
}
_SECONDS = 10.0
_MOST_BYTES = 256 * 1024
#: Controllers that machines' limits need; options of a version 1 mount hold other words too.
_CONTROLLERS = frozenset(
    {"blkio", "cpu", "cpuacct", "cpuset", "devices", "freezer", "hugetlb", "io", "memory", "pids", "rdma"}
)


def kernel_facts(uri: str) -> KernelFacts:
    """Return what the kernel of the host at `uri` is set to; None for what is not known. Never raises."""
    if is_local(uri):
        return understand(_here())
    try:
        return understand(_by_sftp(uri))
    except (NotSupported, OSError, subprocess.SubprocessError):
        return KernelFacts()


def _here() -> dict[str, str]:
    return {name: text for name, path in _FILES.items() if (text := _read(Path(path))) is not None}


def _read(path: Path) -> str | None:
    try:
        with path.open(errors="replace") as file:
            return file.read(_MOST_BYTES)
    except OSError:
        return None


def _by_sftp(uri: str) -> dict[str, str]:
    with tempfile.TemporaryDirectory() as folder:
        # The dash before an order: a file that is not there does not end the others.
        orders = "".join(f'-get "{path}" "{folder}/{name}"\n' for name, path in _FILES.items())
        ssh.sftp(uri, orders, _SECONDS)
        return {name: text for name in _FILES if (text := _read(Path(folder, name))) is not None}


def understand(files: Mapping[str, str]) -> KernelFacts:
    """Return what the texts say. They are a host's own: whatever makes no sense is not known."""
    version, controllers = _control_groups(files.get("mounts", ""), files.get("controllers"))
    forward = _switch(files.get("forward"))
    rules = _switch(files.get("bridge"))
    if rules is None and forward is not None:
        rules = False  # the module is not loaded, so no packet on a bridge meets a rule
    return KernelFacts(version, controllers, forward, rules)


def _switch(text: str | None) -> bool | None:
    return {"0": False, "1": True}.get((text or "").strip())


def _control_groups(mounts: str, controllers: str | None) -> tuple[int | None, tuple[str, ...] | None]:
    lines = [line.split() for line in mounts.splitlines()]
    first = {
        word
        for line in lines
        if len(line) > 3 and line[2] == "cgroup"
        for word in line[3].split(",")
        if word in _CONTROLLERS
    }
    if first:
        return 1, tuple(sorted(first))
    if any(len(line) > 3 and line[2] == "cgroup2" for line in lines) and controllers is not None:
        return 2, tuple(sorted(set(controllers.split()) & _CONTROLLERS))
    return None, None
