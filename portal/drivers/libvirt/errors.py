"""Translate libvirt's errors at the edge; not for sentences shown to people."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import libvirt

from portal.drivers import errors

_BY_CODE: dict[int, type[errors.DriverError]] = {
    libvirt.VIR_ERR_NO_DOMAIN: errors.DomainNotFound,
    libvirt.VIR_ERR_NO_STORAGE_VOL: errors.VolumeNotFound,
    libvirt.VIR_ERR_NO_STORAGE_POOL: errors.PoolNotFound,
    libvirt.VIR_ERR_NO_NETWORK: errors.NetworkNotFound,
    libvirt.VIR_ERR_DOM_EXIST: errors.AlreadyExists,
    libvirt.VIR_ERR_NETWORK_EXIST: errors.AlreadyExists,
    libvirt.VIR_ERR_STORAGE_VOL_EXIST: errors.AlreadyExists,
    libvirt.VIR_ERR_OPERATION_INVALID: errors.InvalidState,
    libvirt.VIR_ERR_OPERATION_TIMEOUT: errors.CallTimeout,
    libvirt.VIR_ERR_XML_ERROR: errors.InvalidSpec,
    libvirt.VIR_ERR_XML_DETAIL: errors.InvalidSpec,
    libvirt.VIR_ERR_CONFIG_UNSUPPORTED: errors.NotSupported,
    libvirt.VIR_ERR_NO_SUPPORT: errors.NotSupported,
    libvirt.VIR_ERR_NO_CONNECT: errors.HostUnreachable,
    libvirt.VIR_ERR_INVALID_CONN: errors.HostUnreachable,
    libvirt.VIR_ERR_AUTH_FAILED: errors.HostUnreachable,
    libvirt.VIR_ERR_RPC: errors.HostUnreachable,
}
#: A file system's words, libvirt's own, lvcreate's and those of zfs.
_FULL = ("No space left on device", "Not enough free space", "insufficient free space", "out of space")
#: Of a bridge that is there, and of one that has the network's addresses.
_BRIDGE = re.compile("error creating bridge interface .*: File exists|Network is already in use by ")
#: Of the program that limits cards: that it failed, or is not there.
_SHAPING = re.compile(r"Child process \((\S*/)?tc |Cannot find 'tc' in path")
_WIRE = {libvirt.VIR_FROM_RPC, libvirt.VIR_FROM_REMOTE}
_WIRE_CODES = {libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_ERR_SYSTEM_ERROR}


def translate(error: libvirt.libvirtError) -> errors.DriverError:
    """Return the driver's error for one of libvirt's."""
    code, raw = error.get_error_code(), str(error)
    if any(words in raw for words in _FULL):
        return errors.PoolFull(raw)
    if "Could not set up host forwarding rule" in raw:
        return errors.PortTaken(raw)
    if _BRIDGE.search(raw):
        return errors.BridgeTaken(raw)
    if _SHAPING.search(raw):
        return errors.NoShaping(raw)
    if error.get_error_domain() in _WIRE and code in _WIRE_CODES:
        return errors.HostUnreachable(raw)
    kind = _BY_CODE.get(code, errors.DriverError)
    if code == libvirt.VIR_ERR_AUTH_FAILED:
        return kind(raw, retryable=False)
    return kind(raw)


@contextmanager
def translated() -> Iterator[None]:
    """Raise driver errors in place of libvirt's; also usable as a decorator."""
    try:
        yield
    except libvirt.libvirtError as error:
        raise translate(error) from error
