"""Domain calls; not for XML."""

from contextlib import suppress

import libvirt

from portal.drivers.domainkinds import XEN, XEN_HOST
from portal.drivers.errors import DomainNotFound, InvalidState
from portal.drivers.libvirt import agent
from portal.drivers.libvirt.errors import translated
from portal.drivers.libvirt.lookup import define_once
from portal.drivers.libvirt.saving import has_saved, restore, wait_while_restored
from portal.drivers.libvirt.xml.domain import DomainElement
from portal.drivers.libvirt.xml.traces import is_fresh, naming_what_is_left, started
from portal.drivers.libvirt.xml.twin import twin_of
from portal.drivers.types import AddressInfo, DomainInfo, DomainSpec, DomainState, TwinSpec
from portal.drivers.validation import check_domain, check_twin, check_uuid

STATES = {
    libvirt.VIR_DOMAIN_RUNNING: DomainState.RUNNING,
    libvirt.VIR_DOMAIN_BLOCKED: DomainState.RUNNING,
    libvirt.VIR_DOMAIN_PAUSED: DomainState.PAUSED,
    libvirt.VIR_DOMAIN_PMSUSPENDED: DomainState.PAUSED,
    libvirt.VIR_DOMAIN_SHUTDOWN: DomainState.SHUTTING_DOWN,
    libvirt.VIR_DOMAIN_SHUTOFF: DomainState.SHUTOFF,
    libvirt.VIR_DOMAIN_CRASHED: DomainState.CRASHED,
}
#: Of what is defined anew from it: with its passwords.
_WHOLE = libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE
_UNDEFINE = (
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
)
#: Of what a domain has beside its definition Xen knows its memory alone, and refuses every other word.
_UNDEFINE_XEN = libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE


def leased(domain: libvirt.virDomain) -> tuple[AddressInfo, ...]:
    """Return what libvirt's DHCP server leased to an active domain; never asks the guest."""
    source = libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE
    return tuple(
        AddressInfo(mac=card["hwaddr"], address=entry["addr"], prefix=entry["prefix"])
        for card in domain.interfaceAddresses(source).values()
        for entry in card["addrs"] or ()
    )


def describe(domain: libvirt.virDomain) -> DomainInfo:
    """Return one domain's state and sizes; does not hang when its emulator is frozen."""
    told, memory_kib, _used, vcpus, _time = domain.info()
    state = STATES.get(told, DomainState.UNKNOWN)
    if state is DomainState.SHUTOFF and has_saved(domain):
        state = DomainState.SAVED
    return DomainInfo(
        name=domain.name(),
        uuid=domain.UUIDString(),
        state=state,
        vcpus=vcpus,
        memory_bytes=memory_kib * 1024,
    )


class Domains:
    """The domains of one connection; the contract is in `portal.drivers.base`."""

    def __init__(self, connection: libvirt.virConnect) -> None:
        self._connection = connection

    @translated()
    def _get(self, uuid: str) -> libvirt.virDomain:
        if uuid == XEN_HOST:
            raise DomainNotFound("this is the host itself")
        return self._connection.lookupByUUIDString(check_uuid(uuid))

    @translated()
    def define(self, spec: DomainSpec) -> DomainInfo:
        """Define a domain unless the same one exists."""
        check_domain(spec)
        # Not VIR_DOMAIN_DEFINE_VALIDATE: libvirt reads its whole schema each time, which takes four times as
        # long as to define. What DomainElement writes is tested against that schema instead.
        return describe(
            define_once(
                self._connection.lookupByUUIDString,
                self._connection.lookupByName,
                spec.name,
                spec.uuid,
                lambda: self._connection.defineXML(DomainElement.to_xml(spec)),
            )
        )

    @translated()
    def define_like(self, uuid: str, spec: TwinSpec) -> DomainInfo:
        """Define a domain like another one unless it exists."""
        check_twin(spec)
        other = self._get(uuid)
        if not other.isPersistent():
            raise InvalidState("the domain is only while it runs")
        # The twin has its passwords too.
        whole = other.XMLDesc(_WHOLE)
        text = twin_of(whole, spec)
        return describe(
            define_once(
                self._connection.lookupByUUIDString,
                self._connection.lookupByName,
                spec.name,
                spec.uuid,
                lambda: self._connection.defineXML(text),
            )
        )

    @translated()
    def undefine(self, uuid: str) -> None:
        """Forget a domain that is off; absent is no error."""
        try:
            domain = self._get(uuid)
        except DomainNotFound:
            return
        # libvirt would make a running domain transient instead of refusing.
        if domain.isActive():
            raise InvalidState("the domain is not off")
        for text in naming_what_is_left(domain.XMLDesc(_WHOLE)):
            # A host that lost the programs for it cannot take it away either.
            with suppress(libvirt.libvirtError):
                self._connection.defineXML(text)
        domain.undefineFlags(_UNDEFINE_XEN if self._connection.getType() == XEN else _UNDEFINE)

    @translated()
    def start(self, uuid: str) -> None:
        """Start a domain that is off; running is no error."""
        domain = self._get(uuid)
        # A worker that died may have begun to restore it: until that is done it seems paused.
        wait_while_restored(domain)
        if not domain.isActive():
            self._create(domain)
        elif describe(domain).state is DomainState.PAUSED:
            raise InvalidState("the domain is paused")

    def _create(self, domain: libvirt.virDomain) -> None:
        if has_saved(domain):
            restore(domain)
            return
        fresh = is_fresh(domain.XMLDesc(_WHOLE))
        domain.createWithFlags(libvirt.VIR_DOMAIN_START_RESET_NVRAM if fresh else 0)
        if fresh:
            # Whoever dies before this lets it forget a second time, what it kept between the two.
            self._connection.defineXML(started(domain.XMLDesc(_WHOLE)))

    @translated()
    def shutdown(self, uuid: str) -> None:
        """Ask the guest to power off; off is no error."""
        domain = self._get(uuid)
        if domain.isActive():
            domain.shutdown()

    @translated()
    def reboot(self, uuid: str) -> None:
        """Ask the guest to reboot."""
        self._active(uuid).reboot()

    @translated()
    def destroy(self, uuid: str) -> None:
        """Force a domain off; off is no error."""
        domain = self._get(uuid)
        if not domain.isActive():
            return
        try:
            domain.destroy()
        except libvirt.libvirtError:
            # The guest may have powered off between the two calls.
            if domain.isActive():
                raise

    @translated()
    def suspend(self, uuid: str) -> None:
        """Pause a domain; paused is no error."""
        domain = self._active(uuid)
        if describe(domain).state is not DomainState.PAUSED:
            domain.suspend()

    @translated()
    def resume(self, uuid: str) -> None:
        """Continue a paused domain; running is no error."""
        domain = self._active(uuid)
        if describe(domain).state is not DomainState.PAUSED:
            return
        try:
            domain.resume()
        except libvirt.libvirtError:
            # A libvirtd that has just been started sees only now how the domain is.
            if not domain.isActive() or describe(domain).state is not DomainState.RUNNING:
                raise

    def _active(self, uuid: str) -> libvirt.virDomain:
        domain = self._get(uuid)
        if not domain.isActive():
            raise InvalidState("the domain is off")
        return domain

    @translated()
    def info(self, uuid: str) -> DomainInfo:
        """Return one domain."""
        return describe(self._get(uuid))

    @translated()
    def addresses(self, uuid: str) -> tuple[AddressInfo, ...]:
        """Return addresses leased by libvirt's DHCP server, else those that the guest tells."""
        domain = self._get(uuid)
        if not domain.isActive():
            return ()
        return leased(domain) or agent.addresses(domain)

    @translated()
    def leases(self, uuid: str) -> tuple[AddressInfo, ...]:
        """Return addresses leased by libvirt's DHCP server."""
        domain = self._get(uuid)
        return leased(domain) if domain.isActive() else ()

    @translated()
    def guest_agent_ping(self, uuid: str) -> bool:
        """Say whether the guest's agent answers."""
        domain = self._get(uuid)
        return bool(domain.isActive()) and agent.answers(domain)
