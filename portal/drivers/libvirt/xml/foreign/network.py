"""What the portal understands of a <network> that somebody made (libvirt's formatnetwork.html)."""

from portal.drivers.libvirt.xml.foreign.conversions import on_off, whole, yes_no
from portal.drivers.libvirt.xml.foreign.fields import Attr, Fields, Many, One, Text

_IP: Fields = {
    "family": Attr("", "family"),
    "address": Attr("", "address"),
    "prefix": Attr("", "prefix", whole),
    "netmask": Attr("", "netmask"),
    "dhcp_ranges": Many("dhcp/range", {"start": Attr("", "start"), "end": Attr("", "end")}),
    "dhcp_hosts": Many("dhcp/host", {name: Attr("", name) for name in ("mac", "name", "ip", "id")}),
}

NETWORK: Fields = {
    "name": Text("name"),
    "uuid": Text("uuid"),
    "title": Text("title"),
    "description": Text("description"),
    "forward": One("forward", {"mode": Attr("", "mode"), "dev": Attr("", "dev")}),
    "bridge": One(
        "bridge",
        {
            "name": Attr("", "name"),
            "zone": Attr("", "zone"),
            "stp": Attr("", "stp", on_off),
            "delay": Attr("", "delay"),
        },
    ),
    "mac": Attr("mac", "address"),
    "mtu": Attr("mtu", "size", whole),
    "domain": Attr("domain", "name"),
    "domain_is_local": Attr("domain", "localOnly", yes_no),
    "vlan": Many("vlan/tag", {"id": Attr("", "id", whole)}),
    "dns_hosts": Many("dns/host", {"ip": Attr("", "ip"), "names": Many("hostname", {"name": Text("")})}),
    "ips": Many("ip", _IP),
    "routes": Many(
        "route",
        {
            "family": Attr("", "family"),
            "address": Attr("", "address"),
            "prefix": Attr("", "prefix", whole),
            "gateway": Attr("", "gateway"),
        },
    ),
    "portgroups": Many("portgroup", {"name": Attr("", "name"), "default": Attr("", "default", yes_no)}),
}
