"""Move a disk to another file while its domain runs, or once it is off. Not for: volumes themselves.

A running domain's disk is mirrored by its emulator, which goes on while nobody looks, also without libvirt.
Such a copy is a job of the running domain alone: a domain that is defined may have no other kind.
"""

from xml.etree import ElementTree as ET

import libvirt

from portal.drivers.errors import (
    AlreadyExists,
    CopyUnsure,
    DeviceNotFound,
    HasSnapshots,
    InvalidState,
    NotSupported,
    PoolFull,
    SavedState,
)
from portal.drivers.libvirt.errors import translated
from portal.drivers.libvirt.plugging import CONFIG, wait_until
from portal.drivers.libvirt.pool import refresh
from portal.drivers.libvirt.xml.build import child, parse
from portal.drivers.libvirt.xml.places import disk_at, file_of, set_file
from portal.drivers.types import CopyStage, DiskCopy
from portal.drivers.validation import check_path, check_target, check_uuid

_COPY = libvirt.VIR_DOMAIN_BLOCK_COPY_REUSE_EXT | libvirt.VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB
_WHOLE = libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE


class Moving:
    """Moves of one connection's disks; the contract is in `portal.drivers.base`."""

    def __init__(self, connection: libvirt.virConnect) -> None:
        self._connection = connection

    def _get(self, uuid: str, target: str, *paths: str) -> libvirt.virDomain:
        check_target(target)
        for path in paths:
            check_path(path)
        return self._connection.lookupByUUIDString(check_uuid(uuid))

    @translated()
    def begin(self, uuid: str, target: str, path: str, to: str) -> None:
        """Begin a copy."""
        domain = self._get(uuid, target, path, to)
        if not domain.isActive():
            raise InvalidState("the domain is off")
        disk = _disk(domain, target)
        if file_of(disk) == to or _mirrored_to(disk, target) == to:
            return
        if file_of(disk) != path or _mirrored_to(disk, target):
            raise AlreadyExists(f"{target} is {file_of(disk)}, or something works on it")
        _check_plain(disk)
        _check_no_snapshots(domain)
        self._check_room(path, to)
        domain.blockCopy(target, _destination(to), {}, _COPY)

    def _check_room(self, path: str, to: str) -> None:
        """Raise PoolFull when what lies in a file and in the images behind it does not fit."""
        pool = self._connection.storageVolLookupByPath(to).storagePoolLookupByVolume()
        refresh(pool)
        needed, place = 0, path
        while place:
            try:
                volume = self._connection.storageVolLookupByPath(place)
            except libvirt.libvirtError as error:
                if error.get_error_code() != libvirt.VIR_ERR_NO_STORAGE_VOL:
                    raise
                break  # what lies in no pool is not known; the copy itself will tell
            needed += volume.info()[2]
            place = parse(volume.XMLDesc()).findtext("backingStore/path") or ""
        if needed > pool.info()[3]:
            raise PoolFull(f"{needed} bytes do not fit pool {pool.name()}")

    @translated()
    def look(self, uuid: str, target: str, to: str) -> DiskCopy:
        """Return how far a copy is."""
        domain = self._get(uuid, target, to)
        disk = _disk(domain, target)
        if file_of(disk) == to:
            return DiskCopy(CopyStage.MOVED)
        if _mirrored_to(disk, target) != to:
            if not domain.isActive() and domain.hasManagedSaveImage():
                raise SavedState("the domain has a saved state, which names the old file")
            _check_no_snapshots(domain)
            return DiskCopy(CopyStage.NONE)
        told = domain.blockJobInfo(target) or {}
        done, total = int(told.get("cur", 0)), int(told.get("end", 0))
        return DiskCopy(CopyStage.READY if _is_ready(disk) else CopyStage.COPYING, done, total)

    @translated()
    def finish(self, uuid: str, target: str, path: str, to: str, copied: bool) -> None:
        """Let the disk be the other file."""
        domain = self._get(uuid, target, path, to)
        disk = _disk(domain, target)
        if file_of(disk) not in {path, to}:
            raise AlreadyExists(f"{target} is {file_of(disk)}")
        _check_plain(disk)
        if file_of(disk) == path:
            _check_no_snapshots(domain)
        if file_of(disk) == path and not copied:
            if _mirrored_to(disk, target) != to or not _is_ready(disk):
                raise InvalidState("no copy of the disk is ready")
            _pivot(domain, target, path, to)
        elif file_of(disk) == path and domain.isActive():
            raise InvalidState("the domain runs on a file that was copied while it was off")
        _define(domain, target, path, to)
        if copied and domain.isActive() and file_of(_disk(domain, target)) == path:
            # Somebody started it at this moment, and it writes to the old file.
            _define(domain, target, to, path)
            raise InvalidState("the domain was started meanwhile")

    @translated()
    def abort(self, uuid: str, target: str, path: str, to: str) -> None:
        """End a copy."""
        domain = self._get(uuid, target, path, to)
        if not domain.isActive():
            return
        disk = _disk(domain, target)
        if file_of(disk) == path and _mirrored_to(disk, target) == to:
            try:
                domain.blockJobAbort(target)
            except libvirt.libvirtError:
                # It may have ended between the two calls.
                if _mirrored_to(_disk(domain, target), target) == to:
                    raise


def _disk(domain: libvirt.virDomain, target: str) -> ET.Element:
    """Return the disk at `target` as it runs or, of a domain that is off, as it is defined."""
    text = domain.XMLDesc() if domain.isActive() else domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    found = disk_at(parse(text), target)
    if found is None:
        raise DeviceNotFound(f"there is no disk {target}")
    return found


def _pivot(domain: libvirt.virDomain, target: str, path: str, to: str) -> None:
    """Let what runs work with its copy, which is ready.

    Raises InvalidState (libvirt saw it fail: it is the file `path`), CopyUnsure.
    """
    try:
        domain.blockJobAbort(target, libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)
    except libvirt.libvirtError as error:
        # A libvirt that died answers this no more.
        disk = _disk(domain, target)
        if domain.isActive() and file_of(disk) == path and disk.find("mirror") is None:
            raise InvalidState(f"the domain could not take the copy: {error}") from error
        if file_of(disk) != to:
            raise CopyUnsure(str(error)) from error
    # libvirt tells of the end of the job a moment after it returns, when another one waited for it.
    if not wait_until(lambda: file_of(_disk(domain, target)) == to):
        raise CopyUnsure("the domain did not take the copy")


def _check_plain(disk: ET.Element) -> None:
    """Raise NotSupported for a disk that is encrypted: a copy would not be."""
    if disk.find(".//encryption") is not None:
        raise NotSupported("the disk is encrypted")


def _check_no_snapshots(domain: libvirt.virDomain) -> None:
    """Raise HasSnapshots: they lie in the old file or name it, and are in no copy."""
    try:
        number = domain.snapshotNum()
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:
            raise
        return
    if number:
        raise HasSnapshots(f"the domain has {number} snapshots")


def _mirrored_to(disk: ET.Element, target: str) -> str:
    """Return the file that a disk is copied to, '' for none. Raises AlreadyExists for any other job."""
    mirror = disk.find("mirror")
    if mirror is None:
        return ""
    source = mirror.find("source")
    # While libvirt ends a copy it says '' for its kind.
    if mirror.get("job") not in {"copy", ""} or source is None:
        raise AlreadyExists(f"something else works on {target}: {mirror.get('job')}")
    return source.get("file", "")


def _is_ready(disk: ET.Element) -> bool:
    mirror = disk.find("mirror")
    return mirror is not None and mirror.get("ready") == "yes"


def _destination(path: str) -> str:
    disk = ET.Element("disk", type="file")
    child(disk, "source", file=path)
    child(disk, "driver", type="qcow2")
    return ET.tostring(disk, encoding="unicode")


def _define(domain: libvirt.virDomain, target: str, path: str, to: str) -> None:
    """Let the disk of file `path` at `target` of the definition be `to`; one that is already stays."""
    if not domain.isPersistent():
        return
    disk = disk_at(parse(domain.XMLDesc(_WHOLE)), target)
    if disk is None or file_of(disk) == to:
        return
    if file_of(disk) != path:
        raise AlreadyExists(f"{target} is defined as {file_of(disk)}")
    set_file(disk, to)
    domain.updateDeviceFlags(ET.tostring(disk, encoding="unicode"), CONFIG)
