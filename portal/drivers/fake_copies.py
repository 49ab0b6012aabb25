"""Copies of disks by the in-memory driver. Not for: what is in them; a fake disk holds nothing."""

from abc import abstractmethod
from xml.etree import ElementTree as ET

from portal.drivers import validation
from portal.drivers.errors import (
    AlreadyExists,
    DeviceNotFound,
    HasSnapshots,
    HostUnreachable,
    InvalidState,
    SavedState,
)
from portal.drivers.fake_devices import Defined, FakeDevices
from portal.drivers.libvirt.xml.build import parse
from portal.drivers.libvirt.xml.places import disk_at, file_of, set_file
from portal.drivers.types import CopyStage, DiskCopy


class FakeCopies(FakeDevices):
    """A copy is ready at the second look after it began."""

    #: Whether copies get ready; else they stay half done.
    copies_end = True

    def __init__(self) -> None:
        #: By domain and target: where to, and how often somebody looked.
        self._copies: dict[tuple[str, str], tuple[str, int]] = {}
        #: How libvirt dies when a domain has just taken its copy, once: "forgetful" of the domain, which goes
        #: on, or "unaware" that it took it; '' for not at all.
        self.dies_at_pivot = ""
        #: The files that domains write to, of whom libvirt says otherwise, by UUID.
        self.written: dict[str, str] = {}
        #: UUIDs of the domains that have snapshots.
        self.snapshots: set[str] = set()

    @abstractmethod
    def _make_room(self, path: str, to: str) -> None:
        """Let the file `to` take what `path` takes. Raises PoolFull, VolumeNotFound."""

    @abstractmethod
    def _forget_run(self, uuid: str) -> None:
        """Say from now on that the domain is off."""

    @abstractmethod
    def has_saved(self, uuid: str) -> bool:
        """Say whether memory of the domain is saved."""

    def begin_copy(self, uuid: str, target: str, path: str, to: str) -> None:
        domain = self._checked(uuid, target, path, to)
        if not domain.running:
            raise InvalidState("the domain is off")
        there, copied = self._file(uuid, target), self._copies.get((uuid, target))
        if there == to or (copied and copied[0] == to):
            return
        if there != path or copied:
            raise AlreadyExists(f"{target} is {there}, or something works on it")
        self._check_no_snapshots(uuid)
        self._make_room(path, to)
        self._copies[uuid, target] = (to, 0)

    def disk_copy(self, uuid: str, target: str, to: str) -> DiskCopy:
        self._checked(uuid, target, to)
        if self._file(uuid, target) == to:
            return DiskCopy(CopyStage.MOVED)
        copied, looks = self._copies.get((uuid, target), ("", 0))
        if copied != to:
            if self.has_saved(uuid):
                raise SavedState(uuid)
            self._check_no_snapshots(uuid)
            return DiskCopy(CopyStage.NONE)
        self._copies[uuid, target] = (to, looks + 1)
        if looks and self.copies_end:
            return DiskCopy(CopyStage.READY, 2, 2)
        return DiskCopy(CopyStage.COPYING, 1, 2)

    def finish_copy(self, uuid: str, target: str, path: str, to: str, copied: bool) -> None:
        domain = self._checked(uuid, target, path, to)
        there = self._file(uuid, target)
        if there not in {path, to}:
            raise AlreadyExists(f"{target} is {there}")
        if there == path:
            self._check_no_snapshots(uuid)
        ready = not copied and self.disk_copy(uuid, target, to).stage is CopyStage.READY
        if there == path and (domain.running if copied else not ready):
            raise InvalidState("it runs, or no copy of its disk is ready")
        if there == path and self.dies_at_pivot and not copied:
            self._die_at_pivot(uuid, to)
        if domain.running:
            domain.running = _with_file(domain.running, target, to)
        self._copies.pop((uuid, target), None)
        domain.persistent = _with_file(domain.persistent, target, to)

    def _die_at_pivot(self, uuid: str, to: str) -> None:
        self._forget_copies(uuid)
        self.written[uuid] = to
        if self.dies_at_pivot == "forgetful":
            self._forget_run(uuid)
        self.dies_at_pivot = ""
        raise HostUnreachable("libvirt died")

    def abort_copy(self, uuid: str, target: str, path: str, to: str) -> None:
        self._checked(uuid, target, path, to)
        if self._copies.get((uuid, target), ("", 0))[0] == to:
            del self._copies[uuid, target]

    def _check_no_snapshots(self, uuid: str) -> None:
        if uuid in self.snapshots:
            raise HasSnapshots(uuid)

    def _forget_copies(self, uuid: str) -> None:
        """End the copies of a domain that is off."""
        self._copies = {key: copied for key, copied in self._copies.items() if key[0] != uuid}

    def _file(self, uuid: str, target: str) -> str:
        domain = self._get(uuid)
        there = disk_at(parse(domain.running or domain.persistent), target)
        if there is None:
            raise DeviceNotFound(f"there is no disk {target}")
        return file_of(there)

    def _checked(self, uuid: str, target: str, *paths: str) -> Defined:
        validation.check_target(target)
        for path in paths:
            validation.check_path(path)
        return self._get(uuid)


def _with_file(text: str, target: str, path: str) -> str:
    domain = parse(text)
    disk = disk_at(domain, target)
    if disk is not None and file_of(disk) != path:
        set_file(disk, path)
    return ET.tostring(domain, encoding="unicode")
