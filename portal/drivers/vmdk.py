"""Read the header of a VMDK that is one sparse file; not for those that name others, nor for changing one.

Format: VMware's Virtual Disk Format 5.0, "Hosted Sparse Extent Header".
"""

import struct
from pathlib import Path

from portal.drivers.errors import InvalidSpec

MAGIC = b"KDMV"
SECTOR = 512
# magic, version, flags, capacity in sectors
_HEADER = struct.Struct("<4sIIQ")
#: 2 and 3 differ in flags for others than QEMU; 3 is what is made for appliances.
_VERSIONS = range(1, 4)


def capacity_bytes(path: str) -> int:
    """Return the size of the disk inside, in bytes. Raises InvalidSpec for what is no such file, OSError."""
    with Path(path).open("rb") as file:
        head = file.read(SECTOR)
    if len(head) < SECTOR or not head.startswith(MAGIC):
        raise InvalidSpec(f"{path} is no sparse VMDK")
    _magic, version, _flags, sectors = _HEADER.unpack_from(head)
    if version not in _VERSIONS or not sectors:
        raise InvalidSpec(f"{path} is a VMDK of the version {version} with {sectors} sectors")
    return int(sectors) * SECTOR
