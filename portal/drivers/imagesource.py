"""What a driver copies to a host: a qcow2 disk, or (by the name of its volume) an ISO, or a file to boot.

Not for: judging what somebody handed in, which `imagefile` does before.
"""

from dataclasses import dataclass

from portal.drivers import iso9660, qcow2
from portal.drivers.errors import InvalidSpec
from portal.drivers.types import BootFileSpec
from portal.drivers.validation import check_image_name, check_iso_name

ISO_SUFFIX = ".iso"


@dataclass(frozen=True, slots=True)
class ImageSource:
    """A file to copy; without the sector at `key_at` nothing takes it for what it is."""

    format: str
    length_bytes: int
    capacity_bytes: int
    key_at: int


def look(name: str, source: str) -> ImageSource:
    """Return what `source` is that is to become the volume `name`. Raises InvalidSpec."""
    if name.endswith(ISO_SUFFIX):
        check_iso_name(name)
        iso = iso9660.inspect(source)
        return ImageSource("iso", iso.length_bytes, iso.length_bytes, iso9660.DESCRIPTOR_AT)
    check_image_name(name)
    disk = qcow2.inspect(source)
    return ImageSource("qcow2", disk.length_bytes, disk.capacity_bytes, 0)


def boot_file(spec: BootFileSpec) -> bytes:
    """Return what a volume to boot from holds. Raises InvalidSpec, also where the file ends before."""
    try:
        with open(spec.source, "rb") as file:
            file.seek(spec.at)
            content = file.read(-1 if spec.length is None else spec.length)
    except OSError as error:
        raise InvalidSpec(f"{spec.source}: {error.strerror}") from error
    if spec.length is not None and len(content) < spec.length:
        raise InvalidSpec(f"{spec.source} ends before the {spec.length} bytes at {spec.at}")
    return content + spec.appended
