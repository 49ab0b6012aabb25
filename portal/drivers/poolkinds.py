"""Kinds of storage pools, what can be done to the volumes of each, and who has one by whatever name.

Not for: what a pool is made with.

`portal.drivers.types` hands these on, and others take them from there.
"""

import posixpath
from collections.abc import Callable, Mapping, Sequence, Set
from enum import StrEnum

#: A file or device by its path, or a volume by its pool and its name.
Place = str | tuple[str, str]


class PoolKind(StrEnum):
    """What a storage pool is made of, in libvirt's words."""

    DIR = "dir"
    FS = "fs"
    NETFS = "netfs"
    LOGICAL = "logical"
    ISCSI = "iscsi"
    RBD = "rbd"
    ZFS = "zfs"


#: Pools whose volumes are files of a folder, of any format. Those of the others are raw.
FOLDER_KINDS = frozenset({PoolKind.DIR, PoolKind.FS, PoolKind.NETFS})
#: Pools that another machine serves.
SERVED_KINDS = frozenset({PoolKind.NETFS, PoolKind.ISCSI, PoolKind.RBD})
#: Pools that can ask who comes to them, for a password that is a secret of the host's libvirt.
SECRET_KINDS = frozenset({PoolKind.ISCSI, PoolKind.RBD})


class VolumeVerb(StrEnum):
    """What can be done to a volume of a pool."""

    CREATE = "create"
    #: A copy that stands by itself, in the same pool.
    CLONE = "clone"
    #: To be what a copy in another pool is made from, which must be able to CLONE.
    COPY_FROM = "copy_from"
    GROW = "grow"
    #: To take content from elsewhere (libvirt's upload), and to give it (libvirt's download).
    WRITE = "write"
    READ = "read"
    DELETE = "delete"


_EVERY = frozenset(VolumeVerb)
#: libvirt opens them as files or devices of the host, whichever pool asks for that.
_OPENED = frozenset({VolumeVerb.WRITE, VolumeVerb.READ, VolumeVerb.COPY_FROM})
_MADE = frozenset({VolumeVerb.CREATE, VolumeVerb.DELETE})
#: By kind what libvirt (9.0) does, as the tables at the end of its src/storage/storage_backend_*.c say:
#: `virStorageBackendLogical` and so on with createVol, buildVolFrom, resizeVol, uploadVol, downloadVol and
#: deleteVol. libvirt also clones in Ceph (`rbd_clone2`), but such a clone stands on a snapshot of what it was
#: made from, which could not be deleted any more: it is no copy.
VOLUME_VERBS: Mapping[str, frozenset[VolumeVerb]] = {
    PoolKind.DIR: _EVERY,
    PoolKind.FS: _EVERY,
    PoolKind.NETFS: _EVERY,
    PoolKind.LOGICAL: _MADE | _OPENED | {VolumeVerb.CLONE},
    # What the server has of LUNs is all there is.
    PoolKind.ISCSI: _OPENED,
    PoolKind.RBD: _MADE | {VolumeVerb.GROW},
    PoolKind.ZFS: _MADE | _OPENED,
}


def can(kind: str, verb: VolumeVerb) -> bool:
    """Tell whether libvirt does something to volumes of a kind of pool. Of a kind unknown here: no."""
    return verb in VOLUME_VERBS.get(kind, frozenset())


def names_of(path: str) -> set[str]:
    """Return by what names a definition can have a volume's file or device.

    A logical volume, `/dev/GROUP/NAME`, is also one of the device mapper's, which doubles hyphens.
    """
    parts = path.split("/")
    if parts[:2] != ["", "dev"] or len(parts) != 4:
        return {path}
    mapped = "-".join(part.replace("-", "--") for part in parts[2:])
    return {path, f"/dev/mapper/{mapped}"}


def users_among(
    places: Set[Place],
    named: Sequence[tuple[str, Set[Place]]],
    canonical: Callable[[tuple[str, ...]], Mapping[str, str]],
) -> tuple[str, ...]:
    """Return by name, sorted, which users have one of some files, devices, and (pool, volume).

    `named` is what each user names. Only a file of the same name in another folder may be the same by a link,
    so that most often `canonical` (`HypervisorDriver.canonical`) is not asked.
    """
    found = {user for user, sources in named if not places.isdisjoint(sources)}
    own: dict[str, set[str]] = {}
    for place in places:
        if isinstance(place, str) and place.startswith("/"):
            own.setdefault(posixpath.basename(place), set()).add(place)
    alike = {
        (user, source)
        for user, sources in named
        if user not in found
        for source in sources
        if isinstance(source, str) and source.startswith("/") and posixpath.basename(source) in own
    }
    if alike:
        sources = {source for _user, source in alike}
        files = {file for source in sources for file in own[posixpath.basename(source)]}
        real = canonical(tuple(sorted(files | sources)))
        wanted = {real[file] for file in files}
        found |= {user for user, source in alike if real[source] in wanted}
    return tuple(sorted(found))
