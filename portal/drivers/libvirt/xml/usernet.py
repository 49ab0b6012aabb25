"""Cards on a network of the guest's own, as arguments of the emulator in <qemu:commandline>.

libvirt's own <interface type='user'> forwards no port with QEMU's network stack, and the passt of Debian 12's
libvirt 9.0 cannot be defined (https://gitlab.com/libvirt/libvirt/-/issues/462). The arguments work with each
version. Not for: cards on a libvirt network.
"""

import re
from xml.etree import ElementTree as ET

from portal.drivers.libvirt.xml.build import child
from portal.drivers.types import DeviceModel, NicSpec

QEMU = "http://libvirt.org/schemas/domain/qemu/1.0"
ET.register_namespace("qemu", QEMU)
_CARDS = {DeviceModel.PARAVIRTUAL: "virtio-net-pci", DeviceModel.EMULATED: "e1000e"}
_BACKEND = re.compile(r"user,id=[a-z0-9]+,hostfwd=tcp:127\.0\.0\.1:([0-9]+)-:22")
_CARD = re.compile(r"[a-z0-9-]+,netdev=[a-z0-9]+,mac=([0-9a-f:]{17}),bus=pcie\.0,addr=0x[0-9a-f]+")
#: libvirt fills the slots from 1 upwards and does not know of this card; those above 0x1a are the chipset's.
_SLOT = 0x10


class OwnNetworkElement:
    """The <qemu:commandline> of a domain; what it takes was checked before, so no value ends an argument."""

    @staticmethod
    def add(domain: ET.Element, nics: list[NicSpec], model: DeviceModel) -> None:
        """Append the arguments of all such cards to <domain>."""
        line = child(domain, f"{{{QEMU}}}commandline")
        for rank, nic in enumerate(nics):
            backend = f"user,id=own{rank},hostfwd=tcp:127.0.0.1:{nic.ssh_port}-:22"
            card = f"{_CARDS[model]},netdev=own{rank},mac={nic.mac},bus=pcie.0,addr={_SLOT + rank:#x}"
            for value in ("-netdev", backend, "-device", card):
                child(line, f"{{{QEMU}}}arg", value=value)

    @staticmethod
    def parse(domain: ET.Element) -> tuple[NicSpec, ...]:
        """Read the cards back; other arguments are ignored."""
        values = [arg.get("value", "") for arg in domain.iter(f"{{{QEMU}}}arg")]
        ports = [int(found[1]) for found in map(_BACKEND.fullmatch, values) if found]
        macs = [found[1] for found in map(_CARD.fullmatch, values) if found]
        return tuple(NicSpec(mac, ssh_port=port) for mac, port in zip(macs, ports, strict=False))
