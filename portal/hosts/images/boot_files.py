"""An installer's kernel and initrd on its CD, where osinfo-db tells of one. Not for: what starts from them.

They are bytes of the CD: nothing unpacks them here, and nothing runs them but the machine.
"""

from contextlib import suppress
from pathlib import Path

from portal.core import osinfo
from portal.drivers import iso9660
from portal.drivers.iso9660 import Piece
from portal.hosts.models import Image

#: Bytes of each; installers have less than 200 MiB.
MOST = 256 << 20
#: What a kernel has at its beginning that starts by Linux's own boot protocol (x86/boot.rst). QEMU takes a
#: file without it for a program of another kind, by code that reads whatever stands there.
_MARK_AT, _MARK = 0x202, b"HdrS"


def found(path: str) -> list[list[str]]:
    """Return the kernel and the initrd, by name, of each pair of osinfo-db that a CD has. Raises OSError."""
    pairs = sorted({(medium.kernel, medium.initrd) for medium in osinfo.media()})
    there = iso9660.find(path, [name for pair in pairs for name in pair])
    return [list(pair) for pair in pairs if _fit(path, there, *pair)]


def note(image: Image) -> None:
    """Note anew what a CD has: it may be there since before this was noted, or osinfo-db be another.

    Idempotent. What cannot be read keeps what was noted; to start from it is refused then.
    """
    if image.kind == Image.Kind.ISO:
        with suppress(OSError):
            Image.objects.filter(pk=image.pk).update(boot_files=found(image.source))


def places(path: str, kernel: str, initrd: str) -> tuple[Piece, Piece] | None:
    """Return where the kernel and the initrd of these names lie on a CD, None for nowhere. Raises OSError."""
    there = iso9660.find(path, [kernel, initrd])
    return (there[kernel], there[initrd]) if _fit(path, there, kernel, initrd) else None


def _fit(path: str, there: dict[str, Piece], kernel: str, initrd: str) -> bool:
    """Say whether both are there, no longer than such files are, and the one is a kernel."""
    if not {kernel, initrd} <= there.keys() or max(there[kernel].length, there[initrd].length) > MOST:
        return False
    with Path(path).open("rb") as file:
        file.seek(there[kernel].at + _MARK_AT)
        return file.read(len(_MARK)) == _MARK
