"""A real host of Xen in QEMU's emulation, from the image that scripts/images/xen-host/build made.

    with XenMachine() as xen:
        xen.uri("gate")                    # xen+ssh://gate@127.0.0.1:40123/system
        xen.run("virsh list")              # as root, beside the portal

It starts in about a minute and a half on two idle cores. Nothing of the image is written to. The process ends
with `stop`, or by itself after `LONGEST`.
"""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

IMAGES = Path(os.environ.get("GATEHOUSE_IMAGES", Path(__file__).resolve().parents[2] / "var/images"))
FOLDER = IMAGES / "xen-host"
#: Seconds until libvirt must answer there, and after which the machine is ended whatever holds its process.
LIMIT, LONGEST = 420.0, 1800
MEMORY, HOSTS_OWN = 2048, 1024  # MiB
#: Without `smap` and the others Xen starts on no emulated processor of QEMU 7.2.
CPU = "max,smap=off,xsave=off,rdtscp=off"


def is_built() -> bool:
    """Tell whether the image is there, whole."""
    return (FOLDER / "recipe").exists()


class XenMachine:
    """One running host, with a disk of its own on top of the image's."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="gth-xen-"))
        self.port = _free_port()
        # ssh takes no key that others could read.
        self._key = Path(shutil.copy(FOLDER / "key", self._folder))
        self._key.chmod(0o600)
        disk = self._folder / "disk.qcow2"
        backing = ("-F", "qcow2", "-b", FOLDER / "disk.qcow2")
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *backing, disk], check=True)
        self._process = subprocess.Popen(self._command(disk), stdin=subprocess.DEVNULL)

    def _command(self, disk: Path) -> list[str]:
        xen = f"dom0_mem={HOSTS_OWN}M,max:{HOSTS_OWN}M dom0_max_vcpus=2 noreboot spec-ctrl=no console=com1"
        kernel = "root=/dev/vda rw console=hvc0 net.ifnames=0 mitigations=off"
        return [
            *("timeout", "-k", "5", str(LONGEST), "qemu-system-x86_64"),
            *("-machine", "pc", "-accel", "tcg,thread=multi", "-cpu", CPU, "-smp", "2", "-m", str(MEMORY)),
            *("-nodefaults", "-no-user-config", "-display", "none", "-vga", "none"),
            *("-kernel", str(FOLDER / "xen"), "-append", xen),
            *("-initrd", f"{FOLDER}/vmlinux {kernel},{FOLDER}/initrd.img"),
            *("-drive", f"file={disk},if=none,id=disk,cache=unsafe", "-device", "virtio-blk-pci,drive=disk"),
            *("-netdev", f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{self.port}-:22"),
            *("-device", "virtio-net-pci,netdev=net,romfile=", "-device", "virtio-rng-pci"),
            *("-serial", f"file:{self._folder}/console.log"),
        ]

    def __enter__(self) -> Self:
        try:
            self.wait()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def wait(self) -> None:
        """Wait until its libvirt answers. Raises TimeoutError with the end of what it wrote."""
        end = time.monotonic() + LIMIT
        while self._process.poll() is None and time.monotonic() < end:
            if self._ssh("virsh -q net-info default", seconds=20).returncode == 0:
                return
            time.sleep(2)
        log = (self._folder / "console.log").read_text(errors="replace")
        raise TimeoutError(f"no host of Xen in {LIMIT:g} s: {log[-2000:]}")

    def stop(self) -> None:
        """End it, as a power cut does, and remove its disk."""
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def uri(self, user: str = "gate") -> str:
        """Return the address to enrol it by."""
        return f"xen+ssh://{user}@127.0.0.1:{self.port}/system"

    def authorize(self, public_key: str, user: str = "gate") -> None:
        """Let the holder of a key sign in as `user`."""
        home = "/root" if user == "root" else f"/home/{user}"
        self.run(f"cat >>{home}/.ssh/authorized_keys", public_key.strip() + "\n")

    def run(self, command: str, given: str = "", seconds: float = 120) -> str:
        """Run a command there as root and return what it printed. Raises CalledProcessError."""
        done = self._ssh(command, given, seconds)
        done.check_returncode()
        return done.stdout

    def _ssh(self, command: str, given: str = "", seconds: float = 120) -> "subprocess.CompletedProcess[str]":
        options = ["-q", "-i", str(self._key), "-p", str(self.port), "-o", "ConnectTimeout=10"]
        options += ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-F", "/dev/null"]
        words = ["ssh", *options, "root@127.0.0.1", command]
        try:
            return subprocess.run(words, input=given, capture_output=True, text=True, timeout=seconds)
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(words, 124, "", "too slow")


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
