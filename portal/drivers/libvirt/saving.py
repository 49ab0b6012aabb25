"""Domains' memory in files of the host, which libvirt calls managed saves; not for snapshots."""

import time

import libvirt

from portal.drivers.errors import (
    CannotRestore,
    CannotSave,
    DriverError,
    HostUnreachable,
    InvalidState,
    NoRoomToSave,
    NotSupported,
    PoolFull,
    PortTaken,
)
from portal.drivers.libvirt.errors import translate, translated
from portal.drivers.validation import check_uuid

#: Hypervisors of libvirt that have no call for it (9.0: containers).
UNABLE = frozenset({"LXC"})
#: Seconds between two looks at a domain that is being restored.
LOOK_EVERY = 0.2


def has_saved(domain: libvirt.virDomain) -> bool:
    """Say whether memory of a domain is saved; no where the hypervisor has no such thing."""
    try:
        return bool(domain.hasManagedSaveImage())
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:
            raise
        return False


def saved_uuids(connection: libvirt.virConnect) -> frozenset[str]:
    """Return, by one call, the UUIDs of all domains of which memory is saved."""
    found = connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_MANAGEDSAVE)
    return frozenset(domain.UUIDString() for domain in found)


def restore(domain: libvirt.virDomain) -> None:
    """Start a domain that is off from what was saved of it. Raises CannotRestore."""
    try:
        # As it was defined then: its firmware must find what it kept.
        domain.create()
    except libvirt.libvirtError as error:
        found = translate(error)
        if error.get_error_code() == libvirt.VIR_ERR_OPERATION_INVALID:
            # Another worker's call came before this one.
            wait_while_restored(domain)
            if domain.isActive():
                return
        if isinstance(found, HostUnreachable | PortTaken) or not has_saved(domain):
            raise found from error
        raise CannotRestore(error.get_error_message()) from error


def wait_while_restored(domain: libvirt.virDomain) -> None:
    """Wait until nobody restores a domain. The caller has a limit.

    It is paused then, and what was saved is deleted once it goes on.
    """
    while domain.state()[0] == libvirt.VIR_DOMAIN_PAUSED and has_saved(domain):
        time.sleep(LOOK_EVERY)


class Saving:
    """Saved domains of one connection; the contract is in `portal.drivers.base`."""

    def __init__(self, connection: libvirt.virConnect) -> None:
        self._connection = connection

    @translated()
    def save(self, uuid: str) -> None:
        """Save a domain's memory and switch it off."""
        domain = self._connection.lookupByUUIDString(check_uuid(uuid))
        while True:
            if not domain.isActive():
                if has_saved(domain):
                    return
                raise InvalidState("the domain is off")
            try:
                domain.managedSave(0)
                return
            except libvirt.libvirtError as error:
                # Someone else works on it: most likely a worker that died had begun this very save, which
                # goes on without it.
                if error.get_error_code() == libvirt.VIR_ERR_OPERATION_TIMEOUT:
                    continue
                # It ended while this call waited.
                if domain.isActive():
                    raise _why_not(error) from error

    @translated()
    def discard(self, uuid: str) -> None:
        """Delete what was saved of a domain."""
        domain = self._connection.lookupByUUIDString(check_uuid(uuid))
        if not has_saved(domain):
            return
        if domain.isActive():
            raise InvalidState("the domain is being restored")
        domain.managedSaveRemove(0)


def _why_not(error: libvirt.libvirtError) -> DriverError:
    """Return what kept a domain from being saved; it goes on."""
    found = translate(error)
    if isinstance(found, PoolFull):
        return NoRoomToSave(found.raw)
    if isinstance(found, HostUnreachable):
        return found
    if error.get_error_code() == libvirt.VIR_ERR_NO_SUPPORT:
        return NotSupported(found.raw)
    return CannotSave(error.get_error_message())
