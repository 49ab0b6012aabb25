"""The <interface> element."""

from xml.etree import ElementTree as ET

from portal.drivers.libvirt.xml.build import child, need, serialise
from portal.drivers.types import DeviceModel, NicSpec

#: Every system since 2009 or so has a driver for the Intel 82574L.
_CARDS = {DeviceModel.PARAVIRTUAL: "virtio", DeviceModel.EMULATED: "e1000e"}


class InterfaceElement:
    """A card on a libvirt network."""

    @classmethod
    def to_xml(cls, spec: NicSpec, model: DeviceModel) -> str:
        """Return the card alone, for a domain that is there."""
        return serialise(cls.add(ET.Element("devices"), spec, model))

    @staticmethod
    def add(devices: ET.Element, spec: NicSpec, model: DeviceModel) -> ET.Element:
        """Append the card to <devices> and return it."""
        card = child(devices, "interface", type="network")
        child(card, "mac", address=spec.mac)
        child(card, "source", network=spec.network)
        child(card, "model", type=_CARDS[model])
        return card

    @staticmethod
    def parse(card: ET.Element) -> NicSpec:
        """Read the element back."""
        return NicSpec(
            mac=need(card, "mac").get("address", ""),
            network=need(card, "source").get("network", ""),
        )
