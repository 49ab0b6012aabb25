"""Emulators that go on when their libvirt forgot them. For tests on further hosts; not for the portal."""

import os
from contextlib import suppress
from pathlib import Path


def at_change_over(host, name):
    """Return what tells that libvirt 9.0 has just written of a domain's copy what it cannot read again."""
    noted = host.folder / f"run/libvirt/qemu/{name}.xml"

    def moment():
        with suppress(OSError):
            return b"<mirror" in (text := noted.read_bytes()) and b" job=''" in text
        return False

    return moment


def emulator(domain):
    """Return the process of a domain's emulator, 0 for none."""
    for folder in Path("/proc").iterdir():
        with suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0") if folder.name.isdigit() else []
            if words and b"qemu" in words[0] and domain.encode() in words:
                return int(folder.name)
    return 0


def has_open(domain, path):
    """Tell whether a domain's emulator has a file open."""
    folder = Path(f"/proc/{emulator(domain)}/fd")
    return any(os.readlink(one).endswith(Path(path).name) for one in folder.iterdir())
