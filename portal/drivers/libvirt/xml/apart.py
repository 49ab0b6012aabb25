"""Take out of a definition what one domain at a time can use. Not for: disks, cards and devices of the host.

By libvirt's formatdomain.html; what it would fill in by itself is left to it.
"""

from collections.abc import Callable, Mapping

from portal.drivers.libvirt.xml.foreign.document import Element
from portal.drivers.libvirt.xml.foreign.placing import take_away


def set_apart(domain: Element, uuid: str) -> None:
    """Let a definition, still with its old UUID, run beside the one that it was copied from. Idempotent.

    The guest is told the new `uuid` where it was told the old one. Fixed ports, addresses and sockets become
    libvirt's choice, and what went to a file of the host goes to a terminal.
    """
    _tell_the_guest(domain, uuid)
    for tag, change in _OWN.items():
        for device in domain.iterfind(f"devices/{tag}"):
            change(device)


def _tell_the_guest(domain: Element, uuid: str) -> None:
    """Write the UUID into what the board says of itself; libvirt refuses another one there (`sysinfo`)."""
    old = _bare(domain.findtext("uuid"))
    for entry in domain.iterfind("sysinfo//entry"):
        own = entry.getparent().tag == "system" and entry.get("name") == "uuid"
        if own or (old and _bare(entry.text) == old):
            entry.text = uuid


def _bare(uuid: str | None) -> str:
    return (uuid or "").strip().replace("-", "").lower()


def _screen(graphics: Element) -> None:
    fixed = [name for name in ("port", "tlsPort", "websocket") if graphics.get(name, "").isdecimal()]
    for name in fixed:
        # Chosen at the start, of each of the three by itself.
        graphics.set(name, "-1")
    if fixed:
        graphics.attrib.pop("autoport", None)
    for place in (graphics, *graphics.iterfind("listen")):
        place.attrib.pop("socket", None)


def _vsock(vsock: Element) -> None:
    for cid in vsock.iterfind("cid"):
        cid.attrib.pop("address", None)
        cid.set("auto", "yes")


#: Kinds of character devices that are one place on the host, if not merely called from here.
_PLACES = frozenset({"file", "dev", "pipe", "unix", "tcp", "udp"})


def _character(device: Element) -> None:
    """Drop a device's log; let it lead to a terminal, or to a socket of libvirt's choice where it has one."""
    for log in device.findall("log"):
        take_away(log)
    kind, sources = device.get("type"), device.findall("source")
    if kind not in _PLACES or (kind in _CALLS and all(one.get("mode") == "connect" for one in sources)):
        return
    target = device.find("target")
    if kind == "unix" and target is not None and target.get("type") in _MADE_BY_LIBVIRT:
        for source in sources:
            source.attrib.pop("path", None)
        return
    for part in (*sources, *device.findall("protocol")):
        take_away(part)
    device.set("type", "pty")


_CALLS = frozenset({"unix", "tcp", "udp"})
#: Channels that get a socket when none is named.
_MADE_BY_LIBVIRT = frozenset({"virtio", "xen"})


def _tap(card: Element) -> None:
    """Drop the name of a card's device on the host, where libvirt makes the device."""
    if card.get("type") in {"network", "bridge", "direct"}:
        for target in card.findall("target"):
            take_away(target)


_OWN: Mapping[str, Callable[[Element], None]] = {
    "graphics": _screen,
    "vsock": _vsock,
    "serial": _character,
    "parallel": _character,
    "console": _character,
    "channel": _character,
    "interface": _tap,
}
