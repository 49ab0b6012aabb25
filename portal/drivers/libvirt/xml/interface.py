"""The <interface> element."""

from xml.etree import ElementTree as ET

from portal.drivers.libvirt.xml.build import child, need
from portal.drivers.types import NicSpec


class InterfaceElement:
    """A virtio card on a libvirt network."""

    @staticmethod
    def add(devices: ET.Element, spec: NicSpec) -> None:
        """Append the card to <devices>."""
        card = child(devices, "interface", type="network")
        child(card, "mac", address=spec.mac)
        child(card, "source", network=spec.network)
        child(card, "model", type="virtio")

    @staticmethod
    def parse(card: ET.Element) -> NicSpec:
        """Read the element back."""
        return NicSpec(
            mac=need(card, "mac").get("address", ""),
            network=need(card, "source").get("network", ""),
        )
