"""The <network> element."""

from xml.etree import ElementTree as ET

from portal.drivers.libvirt.xml.build import child, need, parse, serialise, text_at
from portal.drivers.types import NetworkInfo, NetworkSpec
from portal.drivers.validation import check_network

DNSMASQ = "http://libvirt.org/schemas/network/dnsmasq/1.0"
ET.register_namespace("dnsmasq", DNSMASQ)


class NetworkElement:
    """An IPv4 network with a DHCP range, NAT or isolated; or a bridge of the host."""

    @classmethod
    def to_xml(cls, spec: NetworkSpec) -> str:
        """Return the definition. Raises InvalidSpec."""
        check_network(spec)
        root = ET.Element("network")
        child(root, "name", spec.name)
        child(root, "uuid", spec.uuid)
        if spec.host_bridge:
            child(root, "forward", mode="bridge")
            child(root, "bridge", name=spec.bridge)
            return serialise(root)
        if spec.nat:
            child(root, "forward", mode="nat")
        child(root, "bridge", name=spec.bridge, stp="on", delay="0")
        cls._leases(root, spec)
        return serialise(root)

    @staticmethod
    def bare_xml(name: str, bridge: str) -> str:
        """Return a bridge that nothing is joined to: no addresses, no way out."""
        root = ET.Element("network")
        child(root, "name", name)
        child(root, "bridge", name=bridge, stp="on", delay="0")
        return serialise(root)

    @staticmethod
    def _leases(root: ET.Element, spec: NetworkSpec) -> None:
        address = child(root, "ip", address=spec.address, prefix=str(spec.prefix))
        child(child(address, "dhcp"), "range", start=spec.dhcp_start, end=spec.dhcp_end)
        # The ping check would add 3 s to every lease.
        options = child(root, f"{{{DNSMASQ}}}options")
        child(options, f"{{{DNSMASQ}}}option", value="no-ping")

    @staticmethod
    def from_xml(text: str) -> NetworkSpec:
        """Read a definition of one of the portal's three kinds back. Raises InvalidSpec."""
        root = parse(text)
        name, uuid = text_at(root, "name"), text_at(root, "uuid")
        bridge = need(root, "bridge").get("name", "")
        forward = root.find("forward")
        mode = "" if forward is None else forward.get("mode")
        if mode == "bridge":
            return NetworkSpec(name, uuid, bridge, host_bridge=True)
        address, leases = need(root, "ip"), need(root, "ip/dhcp/range")
        return NetworkSpec(
            name=name,
            uuid=uuid,
            bridge=bridge,
            address=address.get("address", ""),
            prefix=int(address.get("prefix", "0")),
            dhcp_start=leases.get("start", ""),
            dhcp_end=leases.get("end", ""),
            nat=mode == "nat",
        )

    @staticmethod
    def info(text: str, active: bool) -> NetworkInfo:
        """Read what any network has, whoever made it. Raises InvalidSpec."""
        root = parse(text)
        bridge, forward = root.find("bridge"), root.find("forward")
        return NetworkInfo(
            name=text_at(root, "name"),
            uuid=text_at(root, "uuid"),
            bridge="" if bridge is None else bridge.get("name", ""),
            active=active,
            # libvirt's default for <forward/> without a mode is NAT.
            forward="" if forward is None else forward.get("mode", "nat"),
        )
