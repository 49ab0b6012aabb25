"""Read and change what a domain is defined as. Not for: making one, which `domain` does."""

from collections.abc import Mapping
from typing import Any

import libvirt

from portal.drivers.editing import Edit
from portal.drivers.errors import InvalidState
from portal.drivers.libvirt.errors import translated
from portal.drivers.types import DomainDefinition
from portal.drivers.validation import check_uuid

_PERSISTENT = libvirt.VIR_DOMAIN_XML_INACTIVE
#: A definition without the passwords in it would lose them.
_WHOLE = _PERSISTENT | libvirt.VIR_DOMAIN_XML_SECURE


def read(domain: libvirt.virDomain) -> DomainDefinition:
    """Return the definitions of a domain; does not hang when its emulator is frozen."""
    lasting = bool(domain.isPersistent())
    return DomainDefinition(
        persistent=domain.XMLDesc(_PERSISTENT) if lasting else "",
        running=domain.XMLDesc() if domain.isActive() else "",
        autostart=lasting and bool(domain.autostart()),
    )


class Definitions:
    """The definitions of one connection's domains; the contract is in `portal.drivers.base`."""

    def __init__(self, connection: libvirt.virConnect) -> None:
        self._connection = connection

    def _get(self, uuid: str) -> libvirt.virDomain:
        return self._connection.lookupByUUIDString(check_uuid(uuid))

    @translated()
    def read(self, uuid: str) -> DomainDefinition:
        """Return what a domain is defined as and what it runs as."""
        return read(self._get(uuid))

    @translated()
    def autostart(self, uuid: str, on: bool) -> None:
        """Let a domain start with its host, or not."""
        self._get(uuid).setAutostart(int(on))

    @translated()
    def change(self, uuid: str, change: Mapping[str, Any], digest: str) -> DomainDefinition:
        """Make `change` to the definition that has `digest`."""
        domain = self._get(uuid)
        before = read(domain)
        if not before.persistent:
            raise InvalidState("the domain is only while it runs")
        whole = domain.XMLDesc(_WHOLE)
        edit = Edit(whole, change)
        if edit.is_done:
            return before
        edit.check_seen(before.digest, digest)
        self._connection.defineXML(edit.wanted)
        try:
            edit.check_heeded(domain.XMLDesc(_WHOLE))
        except Exception:
            self._connection.defineXML(whole)
            raise
        return read(domain)
