"""What libvirt cannot do to a domain because of its type. Not for: what a host's emulator has (`abilities`).

`portal.drivers.types` hands these on, and others take them from there.
"""

from collections.abc import Mapping
from enum import StrEnum

#: What a connection to Xen says it is (`HostInfo.hypervisor`).
XEN = "Xen"
#: The UUID that Xen gives the host's own domain, Domain-0.
XEN_HOST = "00000000-0000-0000-0000-000000000000"


class DomainFeature(StrEnum):
    """What the portal does to a domain, or gives it, that not every type of domain can have."""

    #: Disks and cards of the portal's making: of virtio, or copies of real devices that QEMU plays.
    OWN_DISKS = "own disks"
    OWN_CARDS = "own cards"
    #: Another network for a card, or its cable; in what is defined, and while the domain runs.
    CHANGE_CARD = "change card"
    CHANGE_CARD_HOT = "change card hot"
    LIMIT_DISK = "limit disk"
    LIMIT_CARD = "limit card"
    GROW_DISK_HOT = "grow disk hot"
    MOVE_DISK = "move disk"
    #: libvirt's managed save.
    SAVE = "save"
    AGENT = "agent"
    BOOT_ORDER = "boot order"
    CACHE = "cache"
    TOPOLOGY = "topology"
    TRIM = "trim"
    WATCHDOG = "watchdog"


_QEMUS = frozenset(
    {
        DomainFeature.OWN_DISKS,
        DomainFeature.OWN_CARDS,
        DomainFeature.CHANGE_CARD_HOT,
        DomainFeature.LIMIT_DISK,
        DomainFeature.LIMIT_CARD,
        DomainFeature.GROW_DISK_HOT,
        DomainFeature.MOVE_DISK,
        DomainFeature.AGENT,
        DomainFeature.BOOT_ORDER,
        DomainFeature.CACHE,
        DomainFeature.TOPOLOGY,
        DomainFeature.WATCHDOG,
    }
)
#: By domain type what libvirt (9.0) lacks, as its sources say. The tables at the end of libxl_driver.c and
#: lxc_driver.c have no domainSetBlockIoTune, domainSetInterfaceParameters, domainBlockResize or
#: domainBlockCopy, and LXC's no domainManagedSave. `libxlDomainUpdateDeviceLive` and `...Config` change
#: nothing but CDs, LXC's `lxcDomainUpdateDeviceFlags` nothing that runs. libxl_conf.c hands Xen a disk's
#: `discard` and the order of kinds of devices (`libxlMakeDisk`, `libxlMakeDomBuildInfo`), and no cache, place
#: of a single device, layout of a processor or watchdog. Xen attaches disks of its own bus alone, and the
#: agent is QEMU's.
LACKED: Mapping[str, frozenset[DomainFeature]] = {
    "xen": _QEMUS | {DomainFeature.CHANGE_CARD},
    "lxc": _QEMUS | {DomainFeature.SAVE, DomainFeature.TRIM},
}


def lacks(kind: str, feature: DomainFeature) -> bool:
    """Tell whether libvirt cannot give a feature to domains of a type. Of a type unknown here: no."""
    return feature in LACKED.get(kind, frozenset())
