"""The contract every hypervisor driver keeps; not for policy, permissions or waiting.

Sizes are bytes. Domains are addressed by UUID, other objects by name. Every call may raise
`HostUnreachable` or `CallTimeout`, and every call taking a specification `InvalidSpec`, before it
touches the host. Creating is idempotent: the same name and UUID returns what exists; the same name
or UUID on another object raises `AlreadyExists`. Removing something absent is no error.
"""

from abc import ABC, abstractmethod

from portal.drivers.types import (
    AddressInfo,
    DomainInfo,
    DomainSpec,
    HostInfo,
    NetworkInfo,
    NetworkSpec,
    PoolSpec,
    SeedSpec,
    VolumeInfo,
    VolumeSpec,
)


class HypervisorDriver(ABC):
    """Speak to one host. An instance belongs to one process and must not survive a fork."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection. Idempotent."""

    @abstractmethod
    def host_info(self) -> HostInfo:
        """Return the host's name, versions, CPU count and memory in bytes."""

    @abstractmethod
    def ensure_pool(self, spec: PoolSpec) -> None:
        """Define and start a directory pool. Idempotent. Raises AlreadyExists."""

    @abstractmethod
    def remove_pool(self, name: str) -> None:
        """Stop and undefine a pool; its files stay, an empty directory goes. Idempotent."""

    @abstractmethod
    def ensure_network(self, spec: NetworkSpec) -> NetworkInfo:
        """Define and start a network. Idempotent. Raises AlreadyExists."""

    @abstractmethod
    def remove_network(self, name: str) -> None:
        """Stop and undefine a network. Idempotent."""

    @abstractmethod
    def create_volume(self, spec: VolumeSpec) -> VolumeInfo:
        """Create a qcow2 volume, blank or cloned.

        Volumes have no UUID: the same name with the same capacity and the same linked image is the
        same volume, and anything else raises AlreadyExists. A clone is never smaller than its image
        (InvalidSpec). A full clone's image must lie in a pool. Raises PoolNotFound, VolumeNotFound
        (no such image), PoolFull.
        """

    @abstractmethod
    def delete_volume(self, pool: str, name: str) -> None:
        """Delete a volume. Idempotent, also when the pool is gone."""

    @abstractmethod
    def volume_info(self, pool: str, name: str) -> VolumeInfo:
        """Return one volume. Raises PoolNotFound, VolumeNotFound."""

    @abstractmethod
    def write_seed(self, spec: SeedSpec) -> VolumeInfo:
        """Write a NoCloud ISO as a volume, replacing one of that name. Idempotent.

        Raises PoolNotFound, PoolFull. Seeds own the suffix `.iso`, so that no disk is replaced.
        """

    @abstractmethod
    def define(self, spec: DomainSpec) -> DomainInfo:
        """Define a domain, off. Idempotent: an existing one is not changed. Raises AlreadyExists."""

    @abstractmethod
    def undefine(self, uuid: str) -> None:
        """Forget a domain; volumes stay. Idempotent. Raises InvalidState when it is not off."""

    @abstractmethod
    def start(self, uuid: str) -> None:
        """Start a domain; running already is no error. Raises DomainNotFound, InvalidState (paused)."""

    @abstractmethod
    def shutdown(self, uuid: str) -> None:
        """Ask the guest to power off and return at once; off is no error. Raises DomainNotFound."""

    @abstractmethod
    def reboot(self, uuid: str) -> None:
        """Ask the guest to reboot and return at once. Raises DomainNotFound, InvalidState (off)."""

    @abstractmethod
    def destroy(self, uuid: str) -> None:
        """Force a domain off; off is no error. Raises DomainNotFound. Never deletes anything."""

    @abstractmethod
    def suspend(self, uuid: str) -> None:
        """Pause a domain; paused is no error. Raises DomainNotFound, InvalidState (off)."""

    @abstractmethod
    def resume(self, uuid: str) -> None:
        """Continue a paused domain; running is no error. Raises DomainNotFound, InvalidState (off)."""

    @abstractmethod
    def domain_info(self, uuid: str) -> DomainInfo:
        """Return one domain. Raises DomainNotFound."""

    @abstractmethod
    def list_domains(self) -> tuple[DomainInfo, ...]:
        """Return every domain, running or not, managed or not, sorted by name."""

    @abstractmethod
    def addresses(self, uuid: str) -> tuple[AddressInfo, ...]:
        """Return leased addresses; empty when off or none yet. Raises DomainNotFound."""
