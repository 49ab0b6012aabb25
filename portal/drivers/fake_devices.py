"""Cards, media and limits of the in-memory driver. Not for: the rest of it, nor what a guest does."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol
from xml.etree import ElementTree as ET

from portal.drivers import validation
from portal.drivers.base import HypervisorDriver
from portal.drivers.errors import (
    DeviceNotFound,
    GuestIgnores,
    InvalidSpec,
    InvalidState,
    NetworkNotFound,
    NoShaping,
    NoSlot,
    VolumeNotFound,
)
from portal.drivers.libvirt.xml.build import parse
from portal.drivers.libvirt.xml.interface import lacking
from portal.drivers.libvirt.xml.places import (
    card_with,
    check_rewired,
    check_shaped,
    disk_at,
    drive_at,
    file_of,
    network_of,
    set_bandwidth,
    set_limits,
    set_link,
    set_medium,
    set_place,
    with_device,
    without_card,
)
from portal.drivers.libvirt.xml.plugged import device_like, element_of, without_device
from portal.drivers.types import CardWas, DeviceModel, NicPlace, NicSpec


class Defined(Protocol):
    """A domain by its two definitions."""

    persistent: str
    running: str


class FakeDevices(HypervisorDriver):
    """Changes texts of definitions, as libvirt would."""

    #: Whether guests do what they are asked to do.
    guest_heeds = True
    #: Whether what runs has a place for another device.
    plugs = True
    #: Whether the host can limit cards.
    shapes = True

    @abstractmethod
    def _get(self, uuid: str) -> Defined:
        """Return a domain. Raises DomainNotFound."""

    @abstractmethod
    def _knows(self, *, file: str = "", network: str = "") -> bool:
        """Say whether a pool has that file, or whether there is that network."""

    def attach_nic(self, uuid: str, spec: NicSpec, model: DeviceModel, was: CardWas | None = None) -> bool:
        validation.check_nic(spec)
        if spec.ssh_port:
            raise InvalidSpec("a card on a network of the guest's own is part of its emulator")
        domain = self._get(uuid)
        sides = {name: parse(text) for name, text in _sides(domain).items()}
        missing = list(lacking(sides, spec, model, was, "running"))
        for name, made in missing:
            network = network_of(parse(made))
            if name == "running" and network and not self._knows(network=network):
                raise NetworkNotFound(network)
        for name, made in missing:
            setattr(domain, name, with_device(getattr(domain, name), parse(made)))
        return bool(domain.running)

    def detach_nic(self, uuid: str, mac: str) -> None:
        validation.check_mac(mac)
        domain = self._get(uuid)
        if domain.running and card_with(parse(domain.running), mac) is not None:
            if not self.guest_heeds:
                raise GuestIgnores(mac)
            domain.running = without_card(domain.running, mac)
        domain.persistent = without_card(domain.persistent, mac)

    def set_link(self, uuid: str, mac: str, up: bool) -> None:
        validation.check_mac(mac)
        _change(self._get(uuid), lambda domain: card_with(domain, mac), lambda card: set_link(card, up))

    def rewire_nic(self, uuid: str, mac: str, to: NicPlace, was: NicPlace) -> None:
        validation.check_mac(mac)
        validation.check_place(to)
        validation.check_place(was)
        domain = self._get(uuid)
        for text in filter(None, (domain.persistent, domain.running)):
            if (card := card_with(parse(text), mac)) is not None:
                check_rewired(card, to, was)
        if domain.running and to.network and not self._knows(network=to.network):
            raise NetworkNotFound(to.network)
        _change(domain, lambda found: card_with(found, mac), lambda card: set_place(card, to))

    def change_media(self, uuid: str, target: str, path: str | None, force: bool = False) -> None:
        validation.check_target(target)
        domain = self._get(uuid)
        if path is not None and not self._knows(file=validation.check_path(path)):
            raise VolumeNotFound(path)
        there = drive_at(parse(domain.running), target) if domain.running else None
        held = not self.guest_heeds and not force
        if there is not None and file_of(there) != (path or "") and held:
            raise GuestIgnores(target)

        def put(drive: ET.Element) -> None:
            if file_of(drive) != (path or ""):
                set_medium(drive, path or "")

        _change(domain, lambda found: drive_at(found, target), put)

    def limit_disk(self, uuid: str, target: str, path: str, limits: Mapping[str, int]) -> None:
        validation.check_target(target)
        validation.check_path(path)
        validation.check_limits(limits)

        def own(domain: ET.Element) -> ET.Element | None:
            there = disk_at(domain, target)
            return there if there is not None and file_of(there) == path else None

        _change(self._get(uuid), own, lambda disk: set_limits(disk, limits))

    def limit_nic(
        self, uuid: str, mac: str, limits: Mapping[str, int], ran: Mapping[str, int] | None = None
    ) -> None:
        validation.check_mac(mac)
        wanted = {"persistent": limits, "running": limits if ran is None else ran}
        for one in wanted.values():
            validation.check_bandwidth(one)
        domain = self._get(uuid)
        found = [(side, card_with(parse(text), mac)) for side, text in _sides(domain).items()]
        cards = {side: card for side, card in found if card is not None}
        if not cards:
            raise DeviceNotFound(f"there is no card {mac}")
        for card in cards.values():
            check_shaped(card)
        if "running" in cards and any(wanted["running"].values()) and not self.shapes:
            raise NoShaping("Child process (tc qdisc add) failed: Specified qdisc kind is unknown")
        for side in cards:
            shape = partial(set_bandwidth, limits=wanted[side])
            _change(domain, lambda root: card_with(root, mac), shape, side)

    def plug_device(self, uuid: str, kind: str, values: Mapping[str, Any]) -> None:
        device, domain = parse(element_of(kind, values)), self._running(uuid)
        if device_like(parse(domain.running), kind, values) is not None:
            return
        if not self.plugs:
            raise NoSlot("No more available PCI slots")
        domain.running = with_device(domain.running, device)

    def unplug_device(self, uuid: str, kind: str, values: Mapping[str, Any]) -> None:
        element_of(kind, values)
        domain = self._running(uuid)
        if device_like(parse(domain.running), kind, values) is None:
            return
        if not self.guest_heeds:
            raise GuestIgnores(kind)
        domain.running = without_device(domain.running, kind, values)

    def _running(self, uuid: str) -> Defined:
        domain = self._get(uuid)
        if not domain.running:
            raise InvalidState("the domain is off")
        return domain


def _sides(domain: Defined) -> dict[str, str]:
    """Return the definitions that a domain has, by their names."""
    return {name: text for name in ("persistent", "running") if (text := getattr(domain, name))}


def _change(
    domain: Defined,
    find: Callable[[ET.Element], ET.Element | None],
    change: Callable[[ET.Element], None],
    side: str = "",
) -> None:
    """Change a device of both definitions, or of one `side`. Raises DeviceNotFound when neither has it."""
    found = 0
    for name, text in _sides(domain).items():
        if side not in ("", name):
            continue
        root = parse(text)
        if (device := find(root)) is not None:
            found += 1
            change(device)
            setattr(domain, name, ET.tostring(root, encoding="unicode"))
    if not found:
        raise DeviceNotFound("the domain has no such device")
