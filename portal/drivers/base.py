"""The contract every hypervisor driver keeps; not for policy, permissions or waiting.

Sizes are bytes. Domains are addressed by UUID, other objects by name. Every call may raise
`HostUnreachable` or `CallTimeout`, and every call taking a specification `InvalidSpec`, before it
touches the host. What is there already is found by whatever name its host has for it; nothing is made by
a name that the portal would not give. Creating is idempotent: the same name and UUID returns what exists;
the same name or UUID on another object raises `AlreadyExists`. Removing something absent is no error.
Whatever works in a pool raises `PoolInactive` when the pool is there and does not run.

All of it stands in one file, however long: who writes a driver, or asks what a call promises, reads one list,
and the contract suite (tests/drivers/contract) holds each driver to just that.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from portal.drivers.types import (
    Accelerator,
    AddressInfo,
    BootFileSpec,
    CardWas,
    DeviceModel,
    DiskCopy,
    DiskSpec,
    DomainDefinition,
    DomainInfo,
    DomainSpec,
    DomainState,
    HostDevice,
    HostInfo,
    HostReadiness,
    NetworkInfo,
    NetworkSpec,
    NicPlace,
    NicSpec,
    PoolInfo,
    PoolKind,
    PoolSpec,
    Proof,
    SeedSpec,
    TwinSpec,
    VolumeDigest,
    VolumeInfo,
    VolumeSpec,
)


class HypervisorDriver(ABC):
    """Speak to one host. An instance belongs to one process and must not survive a fork."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection. Idempotent."""

    def on_lifecycle(
        self,
        changed: Callable[[str, str, DomainState | None, bool], None],
        closed: Callable[[], None],
    ) -> bool:
        """Call `changed(uuid, name, state, unsure)` for each change of a domain, until `closed()`.

        `state` is None when the domain is gone; `unsure` tells that only a new list says for certain.
        Both are called from a thread of the driver's own and must return at once. Return False when
        the driver has no events. No verb: it is for the process that holds the connection.
        """
        return False

    @abstractmethod
    def ping(self) -> None:
        """Make one cheap round trip to the host. Raises HostUnreachable."""

    @abstractmethod
    def host_info(self) -> HostInfo:
        """Return the host's name, versions, CPU count and memory in bytes."""

    @abstractmethod
    def readiness(self) -> HostReadiness:
        """Return what the host says it can do, and who it is. Proves nothing: see `prove`."""

    @abstractmethod
    def host_devices(self) -> tuple[HostDevice, ...]:
        """Return the host's PCI and USB devices by `key`, without bridges and the kernel's own hubs.

        One of which it says nonsense is left out; of a host that tells them slowly only the first ones come
        back, and nothing from one whose hypervisor cannot list any.
        """

    @abstractmethod
    def prove(self, accelerator: Accelerator, seconds: float) -> Proof:
        """Boot a guest of one sector for at most `seconds` and say whether it spoke.

        Makes a transient domain and a small pool of random names and removes both, and what an
        interrupted proof left more than ten minutes ago. A host that refuses the accelerator is an
        answer, not an error.
        """

    @abstractmethod
    def prove_image(self, accelerator: Accelerator, pool: str, name: str, seconds: float) -> Proof:
        """Boot a machine from a clone of an image for at most `seconds` until it asks to sign in.

        With KVM one that is silent for 20 seconds is given up before.
        The machine has the processor and devices that every machine gets, so this proves what one sector
        cannot: a kernel with its timers and two processors. The image must ask on its serial line. Makes a
        transient domain and a volume of random names and removes both, and what an interrupted proof left
        in that pool more than ten minutes ago. A refusal is an answer. Raises PoolNotFound, VolumeNotFound.
        """

    @abstractmethod
    def prove_bridge(self) -> Proof:
        """Make a bridge for a moment and say whether the host could: networks of its own need that.

        Makes a transient network of a random name without addresses and removes it, and what an
        interrupted proof left more than ten minutes ago. A refusal is an answer, not an error.
        """

    @abstractmethod
    def list_pools(self) -> tuple[PoolInfo, ...]:
        """Return every storage pool by name, active or not, with the sizes that the host last read.

        The portal's own are read anew while they are nearly full.
        """

    @abstractmethod
    def pool_kinds(self) -> tuple[PoolKind, ...]:
        """Return the kinds of pools that the host says it has. It may still lack what one needs."""

    @abstractmethod
    def ensure_pool(self, spec: PoolSpec) -> None:
        """Define and start a pool. Idempotent. Raises AlreadyExists.

        A folder is made; no device is ever formatted, and no volume group made. A pool that is defined and
        does not start stays defined: see `remove_pool`. A new one starts with its host from then on; whether
        one does that is there already stays as it is.
        """

    @abstractmethod
    def remove_pool(self, name: str) -> None:
        """Stop and undefine a pool; what lies in it stays, an empty directory goes. Idempotent."""

    @abstractmethod
    def start_pool(self, name: str) -> None:
        """Start a pool that is defined. Idempotent; makes no folder and writes to no device.

        Raises PoolNotFound.
        """

    @abstractmethod
    def stop_pool(self, name: str) -> None:
        """Stop a pool, which stays defined, and what lies in it stays; what is mounted is unmounted.

        Idempotent. Does not ask who uses it. Raises PoolNotFound, CallTimeout (busy).
        """

    @abstractmethod
    def autostart_pool(self, name: str, on: bool) -> None:
        """Let a pool start with its host, or not. Idempotent. Raises PoolNotFound."""

    @abstractmethod
    def refresh_pool(self, name: str) -> PoolInfo:
        """Read what lies in a pool again and return its sizes. Raises PoolNotFound, CallTimeout (busy)."""

    @abstractmethod
    def list_networks(self) -> tuple[NetworkInfo, ...]:
        """Return every network by name, active or not, managed or not."""

    @abstractmethod
    def ensure_network(self, spec: NetworkSpec) -> NetworkInfo:
        """Define and start a network. Idempotent.

        Raises AlreadyExists, BridgeTaken, and InvalidSpec for a guest's own. A bridge of the host is not
        looked for: a guest's start fails when it is not there.
        """

    @abstractmethod
    def remove_network(self, name: str) -> None:
        """Stop and undefine a network. Idempotent."""

    @abstractmethod
    def create_volume(self, spec: VolumeSpec) -> VolumeInfo:
        """Create a volume, blank or cloned.

        Volumes have no UUID: the same name with the same capacity, format and linked image is the
        same volume, and anything else raises AlreadyExists; of a `fresh` one whatever has its name does, also
        what comes to be there meanwhile, and is left as it is. A clone is never smaller than its image
        (InvalidSpec). A full clone's image must lie in a pool; a copy of what lies in another pool is on disk
        when this returns, so that the other can be deleted. Raises PoolNotFound, VolumeNotFound
        (no such image), PoolFull, StrangeFormat (a full clone's image), NotSupported (`can` tells of which
        kinds of pools).
        """

    @abstractmethod
    def upload_image(self, pool: str, name: str, source: str) -> VolumeInfo:
        """Copy the local file `source` into a pool as a volume: a qcow2, or for a `name` in `.iso` an ISO.

        Idempotent: a complete volume of that name with the same length and virtual size is the same
        image (contents are not compared); anything else of that name raises AlreadyExists. The sector
        that makes the file what it is (of a qcow2 the first, of an ISO the first volume descriptor) is
        written last and only after the rest is on disk: so what an interrupted upload left has the length
        but nothing in that sector, and is written anew. Raises InvalidSpec (no self-contained qcow2, no
        whole ISO, no such file, or a name that seeds have), PoolNotFound, PoolFull.
        """

    @abstractmethod
    def list_volumes(self, pool: str) -> tuple[VolumeInfo, ...]:
        """Return a pool's volumes by name, after a look at its folder. Raises PoolNotFound."""

    @abstractmethod
    def delete_volume(self, pool: str, name: str) -> None:
        """Delete a volume. Idempotent.

        Raises PoolNotFound: the folder of a pool that libvirt knows no more may hold the file still.
        """

    @abstractmethod
    def resize_volume(self, pool: str, name: str, capacity_bytes: int) -> VolumeInfo:
        """Make a volume that no domain uses as large as `capacity_bytes`. Idempotent.

        Never makes one smaller, which would cut off data: InvalidSpec. What runs is grown by `grow_disk`.
        Raises PoolNotFound, VolumeNotFound, PoolFull.
        """

    @abstractmethod
    def read_volume(self, pool: str, name: str, offset: int, length: int) -> bytes:
        """Return up to `length` bytes of a volume as it is stored, from `offset` on; empty at its end.

        Raises PoolNotFound, VolumeNotFound, InvalidSpec (more than LONGEST_READ).
        """

    @abstractmethod
    def canonical(self, paths: tuple[str, ...]) -> Mapping[str, str]:
        """Return each of some paths with the symbolic links of its folder resolved, as the host has them now.

        libvirt compares paths as they are written, so that a file has as many as there are links to its
        folder. One that nobody tells comes back as it is: no SSH of the portal's own, no SFTP, no folder.
        """

    @abstractmethod
    def volume_users(self, pool: str, name: str) -> tuple[str, ...]:
        """Return by name the domains that have a volume for a disk, or stand on it, defined or running.

        Asked of the host now, domains that the portal does not know included, by whatever links they name
        the file's folder. Raises PoolNotFound, VolumeNotFound.
        """

    @abstractmethod
    def pool_users(self, pool: str) -> tuple[str, ...]:
        """Return by name the domains that `volume_users` would name for any volume of a pool.

        Asked of the host now, after a look at the pool's folder. Raises PoolNotFound.
        """

    @abstractmethod
    def volume_info(self, pool: str, name: str) -> VolumeInfo:
        """Return one volume. Raises PoolNotFound, VolumeNotFound."""

    @abstractmethod
    def digest_volume(self, pool: str, name: str) -> VolumeDigest:
        """Read a volume's whole file and return its digest, in constant memory. Takes long; changes nothing.

        Of a volume that is written meanwhile it says nothing. Raises PoolNotFound, VolumeNotFound.
        """

    @abstractmethod
    def download_volume(self, pool: str, name: str, target: str) -> VolumeDigest:
        """Write a volume's whole file to the file `target` on the portal's machine; return its digest.

        Replaces what is there; constant memory; takes long. Of a volume with a backing file it is the upper
        layer alone. Raises PoolNotFound, VolumeNotFound, and InvalidSpec when `target` cannot be written.
        """

    @abstractmethod
    def write_seed(self, spec: SeedSpec) -> VolumeInfo:
        """Write a NoCloud ISO as a volume, replacing one of that name. Idempotent.

        Raises PoolNotFound, PoolFull. Seeds own the suffix `.iso`, so that no disk is replaced.
        """

    @abstractmethod
    def write_boot_file(self, spec: BootFileSpec) -> VolumeInfo:
        """Write a kernel or an initrd as a raw volume, replacing one of that name. Idempotent.

        One with the same content is left as it is: a guest may be starting from it. What an interrupted call
        left has another content: only its return says that it is whole. Raises InvalidSpec (no such file, one
        that ends before, or no name of a kernel or initrd), PoolNotFound, PoolFull.
        """

    @abstractmethod
    def define(self, spec: DomainSpec) -> DomainInfo:
        """Define a domain, off. Idempotent: an existing one is not changed. Raises AlreadyExists."""

    @abstractmethod
    def define_like(self, uuid: str, spec: TwinSpec) -> DomainInfo:
        """Define a domain, off, like the one with `uuid`, under the names of `spec`; all else is the same.

        Idempotent: an existing one is not changed. Raises AlreadyExists, DomainNotFound, InvalidState (the
        other is only while it runs), and InvalidSpec where the two would share what one alone can have: a
        disk, memory or firmware that is written, a MAC, a device or the TPM of the host.
        """

    @abstractmethod
    def definition(self, uuid: str) -> DomainDefinition:
        """Return what a domain is defined as and what it runs as. Raises DomainNotFound."""

    @abstractmethod
    def autostart_domain(self, uuid: str, on: bool) -> None:
        """Let a domain start with its host, or not; no change of its definition. Idempotent.

        Raises DomainNotFound, InvalidState (a domain that is only while it runs).
        """

    @abstractmethod
    def redefine(self, uuid: str, change: Mapping[str, Any], digest: str) -> DomainDefinition:
        """Make `change` to a domain's definition, for its next start; what runs is not touched.

        `change` is a patch as of `portal.drivers.inspection.changed`: what it does not name stays as it
        is, whoever wrote it. Idempotent: a definition that is so already is returned. Raises
        DefinitionChanged when it is not the one with that `digest`; InvalidSpec for a change that cannot
        be, or of what never changes (name, UUID, type); ChangeIgnored when the hypervisor took it and did
        not heed it. The definition is as before then. Raises DomainNotFound, InvalidState (a domain that is
        only while it runs).
        """

    @abstractmethod
    def plug_vcpus(self, uuid: str, count: int) -> int | None:
        """Give a running domain `count` vCPUs now; never takes one away. The definition is not touched.

        QEMU's emulation (TCG) may die of it, with the machine: callers ask for none there. The guest's
        agent, where one answers, is asked to use them. Return how many the guest says it uses,
        None when it says nothing. Idempotent. Raises InvalidState (off), NotSupported (the domain was
        started with a lower ceiling), DomainNotFound.
        """

    @abstractmethod
    def set_balloon(self, uuid: str, memory_bytes: int) -> int:
        """Ask a running domain's guest to live with `memory_bytes`, at most what it was started with.

        Waits some seconds for the guest, which may ignore it; return the bytes that it has then. The
        definition is not touched. Idempotent. Raises InvalidState (off), InvalidSpec, NotSupported (it runs
        without a balloon), DomainNotFound.
        """

    @abstractmethod
    def attach_disk(self, uuid: str, spec: DiskSpec, like: Mapping[str, Any] | None = None) -> bool:
        """Attach a disk to a domain, and to what runs of it; return whether the latter has it.

        `like` says what it was before it was detached, as `portal.drivers.inspection` understood it: its bus,
        format, cache, limits and place in the order of boot. Where the bus has no hot plug, a
        running domain gets it at its next start. Idempotent: the same file at the same target is the same
        disk; another file there raises AlreadyExists. Raises NoSlot, InvalidSpec (`like` was another file,
        too), DomainNotFound.
        """

    @abstractmethod
    def detach_disk(self, uuid: str, target: str, path: str) -> None:
        """Take the disk of file `path` at `target` from a domain; the file stays. Another disk there is left.

        Idempotent. Raises GuestIgnores when the guest of a running domain keeps it (nothing was changed
        then, though the guest may let it go later), DomainNotFound.
        """

    @abstractmethod
    def grow_disk(self, uuid: str, target: str, path: str, capacity_bytes: int) -> None:
        """Make the disk of file `path` at `target` as large as `capacity_bytes`; a guest that runs sees it.

        Never makes one smaller. Idempotent. Raises AlreadyExists (another file is there), PoolFull,
        VolumeNotFound (no pool knows the file), DomainNotFound.
        """

    @abstractmethod
    def attach_nic(self, uuid: str, spec: NicSpec, model: DeviceModel, was: CardWas | None = None) -> bool:
        """Attach a card on a network to a domain, and to what runs of it; return whether the latter has it.

        The network is there already (`ensure_network`). A card that `was` there before it was detached is
        given back so, with all else that the definition or what runs has of it still; `spec` tells its MAC
        alone then. Idempotent: the same MAC on the same network is the same card; that MAC elsewhere raises
        AlreadyExists. Raises NoSlot, NetworkNotFound (of a domain that runs), InvalidSpec (also for a network
        of the guest's own, which is its emulator's, and for one that was another card), DomainNotFound.
        """

    @abstractmethod
    def detach_nic(self, uuid: str, mac: str) -> None:
        """Take the card of that MAC from a domain, and from what runs of it; its network stays.

        Idempotent. Raises GuestIgnores when the guest of a running domain keeps it (nothing was changed
        then, though the guest may let it go later), DomainNotFound.
        """

    @abstractmethod
    def set_link(self, uuid: str, mac: str, up: bool) -> None:
        """Plug the cable of the card of that MAC in or out, in the definition and in what runs.

        Idempotent. Raises DeviceNotFound, DomainNotFound.
        """

    @abstractmethod
    def rewire_nic(self, uuid: str, mac: str, to: NicPlace, was: NicPlace) -> None:
        """Bring the card of that MAC from `was` to `to`, in the definition and in what runs; all else stays.

        Both or neither: what runs is put back when the definition cannot be changed. A network is there
        already (`ensure_network`). Idempotent. Raises AlreadyExists (it is on a third thing; nothing was
        changed then), NotSupported (it is on neither a network nor a bridge), NetworkNotFound (of a domain
        that runs), DeviceNotFound, DomainNotFound.
        """

    @abstractmethod
    def change_media(self, uuid: str, target: str, path: str | None, force: bool = False) -> None:
        """Put the ISO file `path` into the drive at `target`, or (None) nothing, now and for later starts.

        Whatever is in it comes out; by `force` also while the guest of a running domain holds the tray shut.
        Idempotent. Raises GuestIgnores when it holds it and nobody forces it (nothing was changed then),
        DeviceNotFound (no drive for CDs is there), VolumeNotFound (no pool knows the file), DomainNotFound.
        """

    @abstractmethod
    def limit_disk(self, uuid: str, target: str, path: str, limits: Mapping[str, int]) -> None:
        """Limit what the disk of file `path` at `target` reads and writes, now and for later starts.

        `limits` has every name of `types.LIMITS`. Limits of other names (bursts) stay. Idempotent. Raises
        DeviceNotFound (another file is there), InvalidSpec, DomainNotFound.
        """

    @abstractmethod
    def limit_nic(
        self, uuid: str, mac: str, limits: Mapping[str, int], ran: Mapping[str, int] | None = None
    ) -> None:
        """Limit what the card of that MAC receives and sends, now and for later starts.

        `limits` has every name of `types.BANDWIDTH`, and so has `ran`, for what runs where that is to have
        others. What is said beside them of the card (a floor) stays. Both sides or neither: what runs is put
        back when the definition cannot be changed. Idempotent. Raises NoShaping (the host cannot limit what
        runs), NotSupported (the card is of a kind that libvirt limits nowhere), DeviceNotFound, InvalidSpec,
        DomainNotFound.
        """

    @abstractmethod
    def plug_device(self, uuid: str, kind: str, values: Mapping[str, Any]) -> None:
        """Give what runs a watchdog, a channel or a USB device of the host; the definition is not touched.

        `kind` and `values` are those of `portal.drivers.inspection`: "watchdogs", told by their model,
        "channels" of virtio, by their name, or "host_devices" of USB, by vendor and product. Idempotent:
        what runs has it already. Raises NoSlot, InvalidState (off), InvalidSpec, DomainNotFound, and
        DriverError for what the hypervisor cannot plug.
        """

    @abstractmethod
    def unplug_device(self, uuid: str, kind: str, values: Mapping[str, Any]) -> None:
        """Take from what runs what `plug_device` gives; the definition is not touched. Idempotent.

        Raises GuestIgnores when the guest keeps it (it may let it go later), InvalidState (off), InvalidSpec,
        DomainNotFound, and DriverError for what the hypervisor cannot unplug.
        """

    @abstractmethod
    def begin_copy(self, uuid: str, target: str, path: str, to: str) -> None:
        """Begin to copy the disk of file `path` at `target` of a domain that runs to the qcow2 file `to`.

        What the guest writes goes to both from then on. The copy is whole, whatever images lie behind the
        disk. `to` is a volume as large as the disk. Returns at once; the copy goes on without the caller, and
        ends with the domain. Idempotent. Raises InvalidState (off), AlreadyExists (another file is there, or
        something else works on the disk), NotSupported (an encrypted disk), HasSnapshots, PoolFull,
        VolumeNotFound, DeviceNotFound, DomainNotFound.
        """

    @abstractmethod
    def disk_copy(self, uuid: str, target: str, to: str) -> DiskCopy:
        """Return how far the disk at `target` is on its way to the file `to`.

        A copy that failed is none. Raises, where there is none: SavedState (it is off, and what was saved of
        it names the old file), HasSnapshots. Raises DeviceNotFound, DomainNotFound.
        """

    @abstractmethod
    def finish_copy(self, uuid: str, target: str, path: str, to: str, copied: bool) -> None:
        """Let the disk at `target` be the file `to`, in the definition and in what runs; all else stays.

        `copied` says that the caller copied the file itself, of a domain that was off and must be so still;
        else the copy that was begun must be READY. The file `path` is left as it is. Idempotent. Raises
        InvalidState (it is otherwise; nothing was changed then), AlreadyExists (the disk is a third file),
        NotSupported (an encrypted disk), HasSnapshots; after any other error the domain may work with either
        file: CopyUnsure, HostUnreachable, CallTimeout, DeviceNotFound, DomainNotFound.
        """

    @abstractmethod
    def abort_copy(self, uuid: str, target: str, path: str, to: str) -> None:
        """End a copy to `to`, so that the disk stays the file `path`; what was copied is left.

        Idempotent; a disk that has moved is left as it is. Raises DomainNotFound.
        """

    @abstractmethod
    def undefine(self, uuid: str) -> None:
        """Forget a domain, with its firmware's memory, its TPM's state and what was saved; volumes stay.

        So does what its traces say is `types.LEFT` of earlier ones. Idempotent. Raises InvalidState when it
        is not off.
        """

    @abstractmethod
    def start(self, uuid: str) -> None:
        """Start a domain; running already is no error.

        A firmware whose trace is `types.FRESH` forgets what it kept, and the trace goes. One that is saved
        goes on where it was, as it was defined then (the trace stays), and nothing is saved any more. Raises
        DomainNotFound, InvalidState (paused), PortTaken (a card's `ssh_port` is another program's),
        CannotRestore (what was saved stays).
        """

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
    def save(self, uuid: str) -> None:
        """Write a domain's memory into a file of the host and switch it off: it is SAVED then.

        Returns when all is written, which takes as long as the host's disk does. Idempotent: one that is
        saved stays so, and a save that an earlier call left under way is waited for. Where it fails, the
        domain goes on as it was: CannotSave (`raw` is the hypervisor's reason), NoRoomToSave, NotSupported.
        Raises DomainNotFound, InvalidState (off).
        """

    @abstractmethod
    def discard_saved(self, uuid: str) -> None:
        """Delete what was saved of a domain, which is as one that lost its power then. Idempotent.

        Raises DomainNotFound, InvalidState (it is being restored from that).
        """

    @abstractmethod
    def domain_info(self, uuid: str) -> DomainInfo:
        """Return one domain. Raises DomainNotFound."""

    @abstractmethod
    def list_domains(self) -> tuple[DomainInfo, ...]:
        """Return every domain, running or not, managed or not, sorted by name.

        Names and states are those of now. A driver may tell sizes that were changed without a restart
        only some listings later.
        """

    @abstractmethod
    def addresses(self, uuid: str) -> tuple[AddressInfo, ...]:
        """Return addresses; empty when off or none yet. Raises DomainNotFound.

        The first source is the host's DHCP server. Only when it knows none and the guest's agent is
        connected is the guest asked, for at most a few seconds (a bridge of the host has no such
        server, nor has a guest's own network); loopback and link-local addresses are left out of its answer.
        """

    @abstractmethod
    def leases(self, uuid: str) -> tuple[AddressInfo, ...]:
        """Return addresses like `addresses`, but never ask the guest, so that it cannot make one wait."""

    @abstractmethod
    def guest_agent_ping(self, uuid: str) -> bool:
        """Say whether the guest's agent answers within a few seconds. Raises DomainNotFound."""
