"""Volumes of pools that are no folders, as the fake driver has them. Not for: files."""

from portal.drivers.types import FOLDER_KINDS, PoolKind, PoolSpec, VolumeSpec, VolumeVerb
from portal.drivers.validation import check_block, check_can

#: Of what whole multiples volumes are, in bytes: LVM's extents and the blocks of ZFS, as they are by default.
UNITS = {PoolKind.LOGICAL: 4 << 20, PoolKind.ZFS: 16 << 10}


def need_new(pool: PoolSpec, spec: VolumeSpec) -> None:
    """Raise NotSupported or InvalidSpec unless a volume can be made in a pool."""
    check_can(pool.kind, VolumeVerb.CREATE if spec.backing_path is None else VolumeVerb.CLONE)
    if pool.kind not in FOLDER_KINDS:
        check_block(spec)


def size_of(pool: PoolSpec, asked: int) -> int:
    """Return how large a volume becomes of which `asked` bytes are asked for."""
    unit = UNITS.get(pool.kind, 1)
    return -(-asked // unit) * unit


def path_of(pool: PoolSpec, name: str) -> str:
    """Return where a volume of a pool is: its file, its device, or its name in Ceph."""
    folders = {PoolKind.LOGICAL: "/dev/", PoolKind.ZFS: "/dev/zvol/", PoolKind.RBD: ""}
    if pool.kind in FOLDER_KINDS:
        return f"{pool.path}/{name}"
    if pool.kind is PoolKind.ISCSI:
        return f"/dev/disk/by-path/{name}"
    return f"{folders[pool.kind]}{pool.source}/{name}"
