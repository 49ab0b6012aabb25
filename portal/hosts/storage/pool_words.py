"""What kinds of pools are, in words, and why volumes of one cannot have done to them what others can.

Not for: what the drivers do, whose table (`can`) this only puts into sentences.
"""

from django.utils.translation import gettext_lazy as _

from portal.drivers.types import FOLDER_KINDS, PoolKind, VolumeVerb, can

#: What a kind is, and what it means to add one.
KINDS = {
    PoolKind.DIR: (
        _("A folder of the host"),
        _("It is made if it is not there; one that is there gets the permissions 0711, its files stay."),
    ),
    PoolKind.FS: (
        _("A device with a file system"),
        _("The host mounts it at the folder. It is never formatted: it must have a file system."),
    ),
    PoolKind.NETFS: (
        _("A folder of a server (NFS)"),
        _(
            "The host mounts it at the folder. Without the server, machines with disks there stand still. "
            "Give each host a folder of its own on the server: a host does not know which disks the machines "
            "of another one have. The portal knows a server again by its name alone."
        ),
    ),
    PoolKind.LOGICAL: (
        _("A volume group (LVM)"),
        _(
            "It must be there; it is never made, nor removed with the pool. All its logical volumes are "
            "listed, and can be deleted here: take one that holds nothing of the host itself."
        ),
    ),
    PoolKind.ISCSI: (
        _("A target (iSCSI)"),
        _(
            "The host logs in to the target of the server. Its LUNs are listed and can be downloaded; to "
            "make and delete them is the server's. While the pool is stopped, the host is logged out."
        ),
    ),
    PoolKind.RBD: (
        _("A pool of Ceph (RBD)"),
        _(
            "The server is a monitor. Give each host a pool of its own: a host does not know which images "
            "the machines of another one have."
        ),
    ),
    PoolKind.ZFS: (
        _("A pool of ZFS, or a part of one"),
        _("It must be there; it is never made, nor removed with the pool. All volumes below it are listed."),
    ),
}
#: What is not done to volumes of a pool, as it is told of one.
_NOT = {
    VolumeVerb.CREATE: _("Volumes are not made in it: %(why)s"),
    VolumeVerb.CLONE: _("Volumes of it are not copied: %(why)s"),
    VolumeVerb.COPY_FROM: _("Volumes of it are not copied into other pools: %(why)s"),
    VolumeVerb.GROW: _("Volumes of it are not made larger: %(why)s"),
    VolumeVerb.WRITE: _("Nothing is written into volumes of it: %(why)s"),
    VolumeVerb.READ: _("Volumes of it are not downloaded: %(why)s"),
    VolumeVerb.DELETE: _("Volumes of it are not deleted: %(why)s"),
}
_LIBVIRT = _("libvirt does not do that for this kind of pool. Do it by the tools of the storage itself.")
_LUNS = _("what the target has is its server's matter. Do it there.")
_CHILDREN = _("a copy that libvirt makes in Ceph keeps the volume that it was made from from being deleted.")
#: What is done to a volume, as a page lists it.
_DOING = {
    VolumeVerb.CLONE: _("copied in its pool"),
    VolumeVerb.COPY_FROM: _("copied or moved into another pool"),
    VolumeVerb.GROW: _("made larger"),
    VolumeVerb.READ: _("downloaded"),
    VolumeVerb.DELETE: _("deleted"),
}


def label_of(kind: str) -> str:
    """Return what a pool of a kind is; libvirt's word for one that the portal does not add."""
    return str(KINDS[PoolKind(kind)][0]) if kind in set(PoolKind) else kind


def why_not(kind: str, verb: VolumeVerb) -> str:
    """Return why something is not done to volumes of a kind of pool, in a sentence; '' where it is."""
    return "" if can(kind, verb) else str(_NOT[verb]) % {"why": _reason(kind, verb)}


def _reason(kind: str, verb: VolumeVerb) -> str:
    if kind == PoolKind.ISCSI:
        return str(_LUNS)
    return str(_CHILDREN if (kind, verb) == (PoolKind.RBD, VolumeVerb.CLONE) else _LIBVIRT)


def not_here(kind: str) -> list[str]:
    """Return in a line for each reason what is not done to volumes of a kind of pool."""
    found: dict[str, list[str]] = {}
    for verb, doing in _DOING.items():
        if not can(kind, verb):
            found.setdefault(_reason(kind, verb), []).append(str(doing))
    words = str(_("Here a volume is not %(doing)s: %(why)s"))
    return [words % {"doing": str(_(", nor ")).join(doing), "why": why} for why, doing in found.items()]


def why_no_upload(kind: str) -> str:
    """Return why no file becomes a volume of a kind of pool, in a sentence; '' where one does."""
    if kind in FOLDER_KINDS:
        return ""
    return str(_("Files are uploaded into pools that are folders: as a volume they are qcow2."))
