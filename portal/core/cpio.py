"""Write small archives that a kernel unpacks behind its initrd. Not for: reading any.

Format: cpio "newc", as the kernel's Documentation/driver-api/early-userspace/buffer-format.rst tells it:
archives may follow each other, each from a boundary of four bytes on.
"""

from collections.abc import Mapping

_ALIGN = 4
_REGULAR = 0o100600  # a file that only root reads
_TRAILER = "TRAILER!!!"


def archive(files: Mapping[str, bytes], *, after: int = 0) -> bytes:
    """Return an archive of `files` by name in the root folder, to stand behind `after` bytes of others."""
    parts = [b"\0" * (-after % _ALIGN)]
    for number, (name, content) in enumerate(files.items(), 1):
        parts.append(_entry(name, content, number, _REGULAR))
    parts.append(_entry(_TRAILER, b"", 0, 0))
    return b"".join(parts)


def _entry(name: str, content: bytes, number: int, mode: int) -> bytes:
    """Return one header, name and content, each filled up to the next boundary."""
    named = name.encode() + b"\0"
    # inode, mode, uid, gid, links, time, length, device (2), special device (2), length of the name, sum
    fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(named), 0)
    head = b"070701" + "".join(f"{field:08X}" for field in fields).encode()
    return _filled(head + named) + _filled(content)


def _filled(part: bytes) -> bytes:
    return part + b"\0" * (-len(part) % _ALIGN)
