"""Read the header of a VMDK that is one sparse file; not for those that name others, nor for changing one.

Format: VMware's Virtual Disk Format 5.0, "Hosted Sparse Extent Header".
"""

import re
import struct
from pathlib import Path

from portal.drivers.errors import DependsOnAnother, InvalidSpec

MAGIC = b"KDMV"
#: How a descriptor begins, which names the files of a disk that is several.
TEXT = b"# Disk DescriptorFile"
SECTOR = 512
# magic, version, flags, capacity, sectors of a grain, descriptor's offset and length; all in sectors
_HEADER = struct.Struct("<4sIIQQQQ")
#: 2 and 3 differ in flags for others than QEMU; 3 is what is made for appliances.
_VERSIONS = range(1, 4)
#: Bytes of a descriptor; one has less than a KiB.
_LONGEST = 1 << 20
_KIND = re.compile(rb'^[ \t]*createType[ \t]*=[ \t]*"([^"]*)"', re.MULTILINE | re.IGNORECASE)
#: Those that are one file.
_KINDS = frozenset({b"monolithicsparse", b"streamoptimized"})


def capacity_bytes(path: str) -> int:
    """Return the size of the disk inside, in bytes.

    Raises DependsOnAnother for one file of several, InvalidSpec for what is no such file, OSError.
    """
    with Path(path).open("rb") as file:
        head = file.read(SECTOR)
        if len(head) < SECTOR or not head.startswith(MAGIC):
            raise InvalidSpec(f"{path} is no sparse VMDK")
        _magic, version, _flags, sectors, _grain, at, length = _HEADER.unpack_from(head)
        if version not in _VERSIONS or not sectors:
            raise InvalidSpec(f"{path} is a VMDK of the version {version} with {sectors} sectors")
        text = b""
        if at < 1 << 40:
            file.seek(at * SECTOR)
            text = file.read(min(length * SECTOR, _LONGEST))
    # A part of a disk in several files has the same header, and none or another descriptor.
    kind = _KIND.search(text) if text.startswith(TEXT) else None
    if kind is None or kind[1].lower() not in _KINDS:
        raise DependsOnAnother("the other files of this VMDK")
    return int(sectors) * SECTOR
