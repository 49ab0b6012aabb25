"""The <network> element."""

from xml.etree import ElementTree as ET

from portal.drivers.libvirt.xml.build import child, need, parse, serialise, text_at
from portal.drivers.types import NetworkSpec
from portal.drivers.validation import check_network

DNSMASQ = "http://libvirt.org/schemas/network/dnsmasq/1.0"
ET.register_namespace("dnsmasq", DNSMASQ)


class NetworkElement:
    """An IPv4 network, NAT or isolated, with a DHCP range."""

    @staticmethod
    def to_xml(spec: NetworkSpec) -> str:
        """Return the definition. Raises InvalidSpec."""
        check_network(spec)
        root = ET.Element("network")
        child(root, "name", spec.name)
        child(root, "uuid", spec.uuid)
        if spec.nat:
            child(root, "forward", mode="nat")
        child(root, "bridge", name=spec.bridge, stp="on", delay="0")
        address = child(root, "ip", address=spec.address, prefix=str(spec.prefix))
        child(child(address, "dhcp"), "range", start=spec.dhcp_start, end=spec.dhcp_end)
        # The ping check would add 3 s to every lease.
        options = child(root, f"{{{DNSMASQ}}}options")
        child(options, f"{{{DNSMASQ}}}option", value="no-ping")
        return serialise(root)

    @staticmethod
    def from_xml(text: str) -> NetworkSpec:
        """Read a definition with one IPv4 address and range back. Raises InvalidSpec."""
        root = parse(text)
        address, leases = need(root, "ip"), need(root, "ip/dhcp/range")
        forward = root.find("forward")
        return NetworkSpec(
            name=text_at(root, "name"),
            uuid=text_at(root, "uuid"),
            bridge=need(root, "bridge").get("name", ""),
            address=address.get("address", ""),
            prefix=int(address.get("prefix", "0")),
            dhcp_start=leases.get("start", ""),
            dhcp_end=leases.get("end", ""),
            nat=forward is not None and forward.get("mode") == "nat",
        )
