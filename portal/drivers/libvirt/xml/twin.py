"""Write a definition like another one, under names of its own. Not for: copying disks."""

import re
import uuid as uuids
from collections.abc import Callable, Mapping

from portal.drivers.errors import InvalidSpec
from portal.drivers.libvirt.xml.apart import set_apart
from portal.drivers.libvirt.xml.foreign.document import Element, is_element, parse, serialise
from portal.drivers.libvirt.xml.foreign.placing import append, take_away
from portal.drivers.types import TwinSpec

#: In the arguments of a network of the guest's own (see `usernet`): its port on the host, and the card's MAC.
_PORT = re.compile(r"(?<=hostfwd=tcp:127\.0\.0\.1:)[0-9]+(?=-:22)")
_MAC = re.compile(r"(?<=mac=)[0-9a-f:]{17}")


def twin_of(text: str, spec: TwinSpec) -> str:
    """Return the definition `text` as one of another domain; what is not named in `spec` stays as it is.

    Raises InvalidSpec where the two would share what one alone can have: a disk that is written, a card's
    MAC, a device of the host.
    """
    domain = parse(text.encode(), "domain")
    set_apart(domain, spec.uuid)
    for tag, value in (("name", spec.name), ("uuid", spec.uuid), ("title", spec.title)):
        _write(domain, tag, value)
    for genid in domain.findall("genid"):
        genid.text = str(uuids.uuid5(uuids.UUID(spec.uuid), "genid"))
    # Made anew from its template: this one's variables are the other's file.
    for nvram in domain.findall("os/nvram"):
        take_away(nvram)
    devices = domain.find("devices")
    for device in [] if devices is None else list(devices):
        if is_element(device):
            _OWN.get(device.tag, _shared)(device, spec)
    for argument in domain.iter("{*}arg"):
        _argument(argument, spec)
    return serialise(domain)


def _write(domain: Element, tag: str, value: str) -> None:
    found = domain.findall(tag)
    for more in found[1:] if value else found:
        take_away(more)
    if value:
        first = found[0] if found else append(domain, tag, domain.findall("uuid") or domain.findall("name"))
        first.text = value


def _shared(_device: Element, _spec: TwinSpec) -> None:
    """Leave a device of which each domain gets its own."""


def _disk(disk: Element, spec: TwinSpec) -> None:
    source = disk.find("source")
    path = "" if source is None else source.get("file", "")
    if path in spec.paths:
        source.set("file", spec.paths[path])
        if disk.get("device", "disk") == "disk":
            _become_a_copy(disk)
    elif source is not None and disk.find("readonly") is None and disk.find("shareable") is None:
        raise InvalidSpec(f"a disk of it would be written by both: {dict(source.attrib)}")


def _become_a_copy(disk: Element) -> None:
    """Let a disk be read as what its copy is: a qcow2 that stands by itself, whatever the original was."""
    for chain in disk.findall("backingStore"):
        take_away(chain)
    driver = disk.find("driver")
    if driver is None:
        driver = append(disk, "driver")
        driver.set("name", "qemu")
    driver.set("type", "qcow2")


def _card(card: Element, spec: TwinSpec) -> None:
    mac = card.find("mac")
    address = "" if mac is None else mac.get("address", "").lower()
    if address not in spec.macs:
        raise InvalidSpec(f"there is no other MAC for {address}")
    mac.set("address", spec.macs[address])


def _host_device(_device: Element, _spec: TwinSpec) -> None:
    raise InvalidSpec("it has a device of its host, which two cannot have")


def _argument(argument: Element, spec: TwinSpec) -> None:
    value = argument.get("value", "")
    value = _PORT.sub(lambda found: _of(spec.ports, found[0]), value)
    argument.set("value", _MAC.sub(lambda found: _of(spec.macs, found[0]), value))


def _of(names: Mapping[str, str], name: str) -> str:
    if name not in names:
        raise InvalidSpec(f"there is no other name for {name}")
    return names[name]


_OWN: Mapping[str, Callable[[Element, TwinSpec], None]] = {
    "disk": _disk,
    "interface": _card,
    "hostdev": _host_device,
}
