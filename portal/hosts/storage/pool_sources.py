"""Check what people say a new pool lies on. Not for: whether another pool lies there, nor the host itself."""

import re
import uuid
from collections.abc import Callable

from django.utils.translation import gettext as _

from portal.core.errors import Denied
from portal.drivers.types import FOLDER_KINDS, SECRET_KINDS, SERVED_KINDS, PoolKind
from portal.hosts.addresses import check_pool_path

_DEVICE = re.compile(r"/dev(/[A-Za-z0-9][A-Za-z0-9._:+-]*)+")
_SERVER = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_PORT = re.compile(r"[1-9][0-9]{0,4}")
#: What the drivers take (`portal.drivers.validation`).
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,126}")
_DATASET = re.compile(rf"{_NAME.pattern}(/{_NAME.pattern}){{0,8}}")
_IQN = re.compile(r"iqn\.[0-9]{4}-[0-9]{2}\.[a-z0-9.:-]{1,200}")
_USER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,126}")


def check(kind: str, source: str, server: str) -> None:
    """Raise Denied unless what a pool lies on is a plain name of what its kind wants."""
    if kind not in set(PoolKind):
        raise Denied(_("Choose one of the kinds."), field="kind")
    if kind in SERVED_KINDS:
        _check_server(kind, server)
    elif server:
        raise Denied(_("Only what a server has has a server; leave this empty."), field="server")
    _CHECKS[PoolKind(kind)](source)


def _check_server(kind: str, server: str) -> None:
    name, colon, port = server.partition(":")
    if not _SERVER.fullmatch(name):
        raise Denied(_("Name the server by its host name or address."), field="server")
    if colon and kind in FOLDER_KINDS:
        raise Denied(_("A folder of a server is reached by no port of its own."), field="server")
    if colon and not (_PORT.fullmatch(port) and int(port) < 1 << 16):
        raise Denied(_("Give the port as a number, or none for the usual one."), field="server")


def check_path(path: str, field: str = "source") -> None:
    """Raise Denied unless a path is one that a pool can have."""
    try:
        check_pool_path(path)
    except Denied as denied:
        raise Denied(denied.reason, field=field) from denied


def _check_folder(source: str) -> None:
    if source:
        raise Denied(_("A folder lies on nothing else; leave this empty."), field="source")


def _check_device(source: str) -> None:
    if not _DEVICE.fullmatch(source) or ".." in source:
        raise Denied(_("Name the device by its path, such as /dev/vdb1."), field="source")


def _check_group(source: str) -> None:
    if not _NAME.fullmatch(source):
        raise Denied(_("Name the volume group as vgs shows it on the host, such as vg0."), field="source")


def _check_target(source: str) -> None:
    if not _IQN.fullmatch(source):
        raise Denied(_("Name the target by its IQN, such as iqn.2026-01.org.example:disks."), field="source")


def _check_ceph(source: str) -> None:
    if not _NAME.fullmatch(source):
        raise Denied(_("Name the pool as ceph osd lspools shows it, such as disks."), field="source")


def _check_dataset(source: str) -> None:
    if not _DATASET.fullmatch(source):
        words = _("Name the pool, or a part of it, as zfs list shows it on the host, such as tank/disks.")
        raise Denied(words, field="source")


_CHECKS: dict[PoolKind, Callable[[str], None]] = {
    PoolKind.DIR: _check_folder,
    PoolKind.FS: _check_device,
    PoolKind.NETFS: check_path,
    PoolKind.LOGICAL: _check_group,
    PoolKind.ISCSI: _check_target,
    PoolKind.RBD: _check_ceph,
    PoolKind.ZFS: _check_dataset,
}


def checked_secret(kind: str, user: str, secret: str) -> str:
    """Return the UUID of a secret as drivers take it, '' for a pool that asks for none. Raises Denied."""
    if not user and not secret:
        return ""
    if kind not in SECRET_KINDS:
        raise Denied(_("Only iSCSI and Ceph ask for a password; leave this empty."), field="user")
    if not _USER.fullmatch(user):
        raise Denied(_("Give the name that the server knows the host by."), field="user")
    try:
        return str(uuid.UUID(secret.strip()))
    except ValueError:
        words = _(
            "Give the UUID of the secret, as virsh secret-list shows it on the host; never the password."
        )
        raise Denied(words, field="secret") from None
