"""Errors every driver raises; not for sentences shown to people (those are selected by `code`)."""


class DriverError(Exception):
    """Report a failed driver call.

    `code` is a stable word that selects a catalogued sentence, `raw` the hypervisor's own text for
    operators, and `retryable` says whether the same call may succeed later without a change.
    """

    code = "driver_error"
    retryable = False

    def __init__(self, raw: str = "", *, retryable: bool | None = None) -> None:
        super().__init__(raw or self.code)
        self.raw = raw
        if retryable is not None:
            self.retryable = retryable

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle with all attributes, because calls run in child processes."""
        return (_rebuild, (type(self), self.raw, self.retryable))


def _rebuild(kind: type[DriverError], raw: str, retryable: bool) -> DriverError:
    return kind(raw, retryable=retryable)


class HostUnreachable(DriverError):
    """The hypervisor cannot be reached, or the connection broke."""

    code = "host_unreachable"
    retryable = True


class KeyRefused(HostUnreachable):
    """The host's SSH server let nobody in as this user with this key. It does not say which was wrong."""

    code = "key_refused"
    retryable = False


class HostKeyChanged(HostUnreachable):
    """The host showed another key than the confirmed one, so nothing was sent to it."""

    code = "host_key_changed"
    retryable = False


class HostKeyUnconfirmed(HostUnreachable):
    """Nobody confirmed the host's key yet, so nothing connects."""

    code = "host_key_unconfirmed"
    retryable = False


class HostRemoved(HostUnreachable):
    """The host does not belong to the portal any more."""

    code = "host_removed"
    retryable = False


class NoIdentity(DriverError):
    """The portal's own key cannot be read or written here."""

    code = "no_identity"


class NameUnknown(HostUnreachable):
    """The host's name leads to no address."""

    code = "name_unknown"


class LibvirtAbsent(HostUnreachable):
    """SSH let us in, but no libvirt daemon listens there; it may be starting."""

    code = "libvirt_absent"


class LibvirtRefused(HostUnreachable):
    """SSH let us in, but the user may not use the libvirt daemon there."""

    code = "libvirt_refused"
    retryable = False


class CallTimeout(DriverError):
    """The host was reached but did not finish the call in time."""

    code = "call_timeout"
    retryable = True


class DomainNotFound(DriverError):
    """No domain has that UUID."""

    code = "domain_not_found"


class VolumeNotFound(DriverError):
    """No volume has that name or path."""

    code = "volume_not_found"


class PoolNotFound(DriverError):
    """No storage pool has that name."""

    code = "pool_not_found"


class PoolInactive(DriverError):
    """The storage pool is there and does not run, so that nobody can say what lies in it."""

    code = "pool_inactive"


class PoolFull(DriverError):
    """The storage pool has too little room."""

    code = "pool_full"


class NetworkNotFound(DriverError):
    """No network has that name."""

    code = "network_not_found"


class AlreadyExists(DriverError):
    """The name or UUID belongs to another object."""

    code = "already_exists"


class InvalidSpec(DriverError):
    """The specification holds a value that no host may be given."""

    code = "invalid_spec"


class DependsOnAnother(InvalidSpec):
    """A disk's content lies in another file too; `raw` says in which."""


class InvalidState(DriverError):
    """The object's present state does not allow the call."""

    code = "invalid_state"


class DefinitionChanged(DriverError):
    """The object is defined otherwise than the caller saw it."""

    code = "definition_changed"


class ChangeIgnored(DriverError):
    """The hypervisor took a definition and left a value of it as it was."""

    code = "change_ignored"


class GuestIgnores(DriverError):
    """The guest was asked to let something go and did not, within a while."""

    code = "guest_ignores"


class SavedState(DriverError):
    """The domain is off with its memory saved, and what was saved names its devices as they were."""

    code = "saved_state"


class CannotSave(DriverError):
    """The hypervisor would not save the domain's memory, and says why."""

    code = "cannot_save"


class NoRoomToSave(DriverError):
    """The host has no room for the file that the domain's memory would be saved in."""

    code = "no_room_to_save"


class CannotRestore(DriverError):
    """What was saved of the domain could not be started from, and is kept."""

    code = "cannot_restore"


class HasSnapshots(DriverError):
    """The domain has snapshots, which a copy of its disk would not have."""

    code = "has_snapshots"


class CopyUnsure(DriverError):
    """The domain was told to work with a copy of its disk, and nobody knows whether it does."""

    code = "copy_unsure"


class DeviceNotFound(DriverError):
    """The domain has no such device, as it is defined and as it runs."""

    code = "device_not_found"


class NoSlot(DriverError):
    """The domain has no place for another device while it runs."""

    code = "no_slot"


class NoShaping(DriverError):
    """The host lacks what it takes to limit a card: traffic control of its kernel, or the program for it."""

    code = "no_shaping"


class PortTaken(DriverError):
    """Another program listens on the port that leads to a guest."""

    code = "port_taken"


class BridgeTaken(DriverError):
    """The host has a bridge of a network's name, or with its addresses, and libvirt does not know it."""

    code = "bridge_taken"


class ScreenRefused(DriverError):
    """SSH let us in, but its user may not open the sockets of machines' screens there."""

    code = "screen_refused"


class StrangeFormat(DriverError):
    """A volume holds something else than it is said to: what a guest wrote may name files of the host."""

    code = "strange_format"


class NotSupported(DriverError):
    """The host, or the URI's scheme, does not offer the call."""

    code = "not_supported"
