"""Frozen values of pools, volumes and what lies in them, which all others import from `portal.drivers.types`.

Every size is in bytes. Not for: disks of domains, which are no volumes to them.
"""

from dataclasses import dataclass, field
from enum import StrEnum

from portal.drivers.poolkinds import PoolKind


class CloneMode(StrEnum):
    """How a volume relates to the image it is made from."""

    LINKED = "linked"
    FULL = "full"


#: How the names of the portal's own pools begin.
POOL_PREFIX = "gatehouse-"


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """A storage pool; one that is a directory needs no more than its first three values.

    `path` is the folder of a pool of files, empty for others. `source` is what the pool lies on: a device
    with a file system (fs), what the server exports (netfs), a volume group (logical), a target's IQN
    (iscsi), or a pool of Ceph or ZFS. `server` is who serves it. For a pool that asks who comes (iscsi, rbd)
    `user` is that name, and `secret` the UUID of a secret of the host's libvirt that holds the password. The
    password itself is the host's alone.
    """

    name: str
    uuid: str
    path: str = ""
    kind: PoolKind = PoolKind.DIR
    source: str = ""
    server: str = ""
    user: str = ""
    secret: str = ""


@dataclass(frozen=True, slots=True)
class VolumeSpec:
    """A volume: blank, or cloned from `backing_path`; a linked one is never raw (`format`).

    `backing_format` is what the image is known to be. Who has a raw disk can write there whatever reads as
    another format and names files of the host, so that a full clone of what reads otherwise is refused.

    In a pool that is no folder it is raw, and may come to be larger: volumes there are of whole extents.
    With `fresh` it must not be there: one of that name, though it be the same, is somebody else's.
    """

    pool: str
    name: str
    capacity_bytes: int
    backing_path: str | None = None
    backing_format: str = "qcow2"
    clone: CloneMode = CloneMode.LINKED
    format: str = "qcow2"
    fresh: bool = False


#: Bytes of a volume that one call returns at most.
LONGEST_READ = 4 << 20


@dataclass(frozen=True, slots=True)
class SeedSpec:
    """Documents for cloud-init's NoCloud source; `name` ends in `.iso`.

    With `kickstart` the CD is for Anaconda instead: it is labelled OEMDRV and holds `ks.cfg` alone.
    """

    pool: str
    name: str
    meta_data: str
    user_data: str
    network_config: str | None = None
    kickstart: str | None = None


#: What the names of a guest's own kernel and initrd end in.
BOOT_FILES = (".kernel", ".initrd")


@dataclass(frozen=True, slots=True)
class BootFileSpec:
    """A kernel or an initrd as a volume: the portal's file `source`, and `appended` behind it.

    Of the file it is the `length` bytes from `at` on; all that follows without a length. `name` ends in one
    of `BOOT_FILES`.
    """

    pool: str
    name: str
    source: str
    appended: bytes = b""
    at: int = 0
    length: int | None = None


@dataclass(frozen=True, slots=True)
class VolumeInfo:
    """A volume as the host reports it; `length_bytes` are its file's, 0 where the host does not say.

    What lies in a pool that is no folder is raw, whatever the host says of labels on it.
    """

    pool: str
    name: str
    path: str
    capacity_bytes: int
    allocation_bytes: int
    backing_path: str | None = None
    format: str = "qcow2"
    length_bytes: int = 0
    #: When its file was written last, in the host's words; '' where the host does not say.
    written: str = field(default="", compare=False)


class CopyStage(StrEnum):
    """How far a disk is on its way to another file.

    NONE: it is on the old one, and nothing copies it. READY: the other is the same, and stays so. MOVED: the
    domain works with the other one, or will when it starts.
    """

    NONE = "none"
    COPYING = "copying"
    READY = "ready"
    MOVED = "moved"


@dataclass(frozen=True, slots=True)
class DiskCopy:
    """How far a copy is, in bytes; `total` grows while a guest writes, and is 0 where there is no copy."""

    stage: CopyStage
    done: int = 0
    total: int = 0

    @property
    def percent(self) -> int:
        """How much of it is done; never 100 before it is ready."""
        if self.stage in {CopyStage.READY, CopyStage.MOVED}:
            return 100
        return min(99, 100 * self.done // self.total) if self.total else 0


@dataclass(frozen=True, slots=True)
class VolumeDigest:
    """What a volume's file holds: its SHA-256 as 64 hexadecimal digits, and its length."""

    sha256: str
    length_bytes: int


@dataclass(frozen=True, slots=True)
class PoolInfo:
    """A storage pool as the host reports it; sizes of an inactive one are 0, `path` may be empty.

    `kind` is libvirt's word, also of kinds that the portal does not make. `autostart` tells whether it runs
    whenever the host does. `source` and `server` are as in `PoolSpec`. One that is not `persistent` is only
    while it runs.
    """

    name: str
    uuid: str
    path: str
    active: bool
    capacity_bytes: int
    allocation_bytes: int
    available_bytes: int
    kind: str = PoolKind.DIR
    autostart: bool = True
    source: str = ""
    server: str = ""
    persistent: bool = True
