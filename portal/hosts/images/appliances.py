"""Take the disk out of an appliance (OVA) that somebody handed in, and what it says of its machine.

Not for: judging the disk, which `drivers.imagefile` does, nor for the format of the archive.
"""

import errno
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from portal.core import osinfo
from portal.drivers.errors import InvalidSpec
from portal.drivers.imagefile import SECTOR, Unfit
from portal.drivers.ova.appliance import Appliance, PackedDisk
from portal.drivers.ova.archive import opened
from portal.drivers.types import DeviceModel
from portal.hosts.images.values import go_together

#: What others call systems (VMware's and VirtualBox's names and words, in small letters) -> osinfo-db's ids.
_SYSTEMS = (
    (r"windows ?2019srvnext|windows ?(?:server )?2022", "win2k22"),
    (r"windows ?(?:server )?20(12|16|19)", r"win2k\1"),
    (r"windows9server|windows ?9srv", "win2k16"),
    (r"windows ?9(?:_64)?guest", "win10"),
    (r"windows ?(10|11)(?!\d)", r"win\1"),
    (r"ubuntu ?(\d\d)(?:_lts|[._]04)", r"ubuntu\1.04"),
    (r"ubuntu ?(\d\d)[._]10", r"ubuntu\1.10"),
    (r"(?:debian|debian gnu/linux) ?(\d\d?)(?!\d)", r"debian\1"),
    (r"fedora ?(\d\d)(?!\d)", r"fedora\1"),
    (r"(?:red ?hat|rhel|red hat enterprise linux) ?(\d)(?!\d)", r"rhel\1.0"),
    (r"centos ?(\d)(?!\d)", r"centos\1.0"),
    (r"(rocky|alma)(?:linux| linux)? ?(\d)(?!\d)", r"\1\2"),
)
#: What a word ends in that says how wide a processor's registers are, and nothing of a release.
_WIDTHS = ("64", "32")
MOST_NETWORKS = 16


class NoDisk(Exception):
    """Which disk it is to be was not said, or is not there; `disks` are those to choose from."""

    def __init__(self, code: str, raw: str, disks: Sequence[dict[str, Any]] = ()) -> None:
        super().__init__(code)
        self.code, self.raw, self.disks = code, raw, list(disks)


@dataclass(frozen=True)
class Taken:
    """A disk that was taken out of an appliance; bytes.

    `told` is what the appliance says of its machine, as a row keeps it. `number` counts the machine's disks
    from 1, and `capacity_bytes` is how large the descriptor says that this one is. `disks` are there, and
    with `whole` all of them are taken.
    """

    told: dict[str, Any]
    number: int
    length_bytes: int
    capacity_bytes: int
    sha256: str
    disks: int = 1
    whole: bool = False

    def check_data(self, *, starts: bool) -> None:
        """Raise Unfit unless what is of no known format can be a raw disk of data; `starts`: machines do.

        They start from the first disk: others need no boot sector. Byte for byte it is as long as the guest
        sees it, so that half of a file, or one of a format that nobody knows, is none.
        """
        if starts and self.number == 1:
            raise Unfit("image_unknown")
        if -(-self.length_bytes // SECTOR) != -(-self.capacity_bytes // SECTOR):
            raise Unfit("appliance_no_data", f"{self.capacity_bytes} bytes, and not {self.length_bytes}")


def take_disk(
    source: Path,
    target: Path,
    *,
    number: int | None,
    room_bytes: int,
    check: Callable[[], None],
    whole: bool = False,
) -> Taken | None:
    """Write a disk of the appliance to `target`.

    `number` counts the machine's disks from 1; None for the only one, and with `whole` for the first of all.
    None for an archive that is no appliance. `check` ends it by raising. Idempotent. Raises Unfit with the
    reason, NoDisk for a number that lacks or is not there, and OSError (ENOSPC) when the disk has more than
    `room_bytes`.
    """
    try:
        with opened(source) as archive:
            if not archive.descriptors():
                return None
            found = archive.appliance()
            all_of_them = whole and number is None and go_together(len(found.disks))
            disk = _chosen(found, 1 if all_of_them else number)
            length = archive.size_of(disk.file)
            if length > room_bytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
            digest = archive.unpack(disk.file, target, check)
    except InvalidSpec as error:
        raise Unfit("appliance_unfit", error.raw) from error
    told = said_by(found)
    if len(found.disks) > 1 and not all_of_them:
        # Another disk of the same file is another image.
        told |= {"disk": number, "disks": len(found.disks), "sha256": digest}
    count = len(found.disks)
    return Taken(told, number or 1, length, disk.capacity_bytes, digest, count, all_of_them)


def _chosen(found: Appliance, number: int | None) -> PackedDisk:
    disks = [
        {
            "number": place,
            "capacity": disk.capacity_bytes,
            "format": disk.format,
            "file": shown(disk.file),
        }
        for place, disk in enumerate(found.disks, 1)
    ]
    if number is None and len(disks) > 1:
        raise NoDisk("appliance_disks", str(len(disks)), disks)
    if number is not None and not 1 <= number <= len(disks):
        raise NoDisk("appliance_no_disk", str(number), disks)
    return found.disks[(number or 1) - 1]


def said_by(found: Appliance) -> dict[str, Any]:
    """Return what an appliance says of its machine; bytes, and '' or 0 for what it does not say."""
    return {
        "name": shown(found.name),
        "vcpus": found.vcpus,
        "memory": found.memory_bytes,
        "uefi": found.uefi,
        "secure_boot": found.secure_boot,
        "tpm": found.tpm,
        "bus": found.bus,
        "card": found.card,
        "cards": len(found.networks),
        "os": system_of(found.systems),
        "system": shown(next(iter(found.systems), "")),
        "networks": [shown(name) for name in dict.fromkeys(found.networks) if name][:MOST_NETWORKS],
        "blank": found.blank,
    }


def device_models(told: Mapping[str, Any]) -> list[str]:
    """Return which devices a system has drivers for, by the hardware that its machine had.

    What ran on another's disks and cards may know nothing of virtio, and finds its disk on SATA. Whoever says
    nothing of it, or names virtio, gets that.
    """
    foreign = {told.get("bus", ""), told.get("card", "")} - {"", "virtio"}
    return [DeviceModel.EMULATED.value if foreign else DeviceModel.PARAVIRTUAL.value]


def shown(text: str) -> str:
    """Return of a stranger's text what pages show: a hundred letters that can be shown."""
    return "".join(letter for letter in text if letter.isprintable())[:100]


def system_of(words: Iterable[str]) -> str:
    """Return what osinfo-db calls the system that others call by one of `words`, '' where it knows none."""
    for word in words:
        if osinfo.is_known(word):
            return word
        found = _translated(word.lower())
        if found and osinfo.knowledge(found) is not None:
            return found
    return ""


def _translated(word: str) -> str:
    for pattern, name in _SYSTEMS:
        matched = re.search(pattern, word)
        if matched and not matched[0].endswith(_WIDTHS):
            return matched.expand(name).replace("alma", "almalinux")
    return ""
