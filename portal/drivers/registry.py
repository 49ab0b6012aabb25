"""Find the driver for a connection URI; not for keeping connections."""

from collections.abc import Callable
from urllib.parse import urlsplit

from portal.drivers.base import HypervisorDriver
from portal.drivers.errors import NotSupported

Factory = Callable[[str], HypervisorDriver]


def _libvirt(uri: str) -> HypervisorDriver:
    # Imported late: a process that only uses the fake needs no libvirt library.
    from portal.drivers.libvirt.driver import LibvirtDriver

    return LibvirtDriver(uri)


def _fake(uri: str) -> HypervisorDriver:
    from portal.drivers.fake import FakeDriver

    return FakeDriver(uri)


_FACTORIES: dict[str, Factory] = {"qemu": _libvirt, "xen": _libvirt, "test": _libvirt, "fake": _fake}


def driver_for(uri: str) -> HypervisorDriver:
    """Open a driver by the URI's scheme; `qemu+tls` and the like follow `qemu`.

    Raises NotSupported for an unknown scheme and HostUnreachable.
    """
    kind = urlsplit(uri).scheme.partition("+")[0]
    try:
        factory = _FACTORIES[kind]
    except KeyError as error:
        raise NotSupported(f"no driver for scheme {kind!r}") from error
    return factory(uri)
