"""The <interface> element."""

from xml.etree import ElementTree as ET

from portal.drivers.libvirt.xml.build import child, need
from portal.drivers.types import DeviceModel, NicSpec

#: Every system since 2009 or so has a driver for the Intel 82574L.
_CARDS = {DeviceModel.PARAVIRTUAL: "virtio", DeviceModel.EMULATED: "e1000e"}


class InterfaceElement:
    """A card on a libvirt network."""

    @staticmethod
    def add(devices: ET.Element, spec: NicSpec, model: DeviceModel) -> None:
        """Append the card to <devices>."""
        card = child(devices, "interface", type="network")
        child(card, "mac", address=spec.mac)
        child(card, "source", network=spec.network)
        child(card, "model", type=_CARDS[model])

    @staticmethod
    def parse(card: ET.Element) -> NicSpec:
        """Read the element back."""
        return NicSpec(
            mac=need(card, "mac").get("address", ""),
            network=need(card, "source").get("network", ""),
        )
