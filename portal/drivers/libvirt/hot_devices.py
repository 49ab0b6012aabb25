"""Change cards, media and limits of a domain, while it runs too. Not for: disks, processors, memory."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any
from xml.etree import ElementTree as ET

import libvirt

from portal.drivers.errors import DeviceNotFound, GuestIgnores, InvalidSpec, InvalidState, NoSlot
from portal.drivers.libvirt.errors import translated
from portal.drivers.libvirt.plugging import CONFIG, LIVE, Find, definitions, detach, slots, unplug
from portal.drivers.libvirt.xml.build import child, need, parse
from portal.drivers.libvirt.xml.interface import lacking
from portal.drivers.libvirt.xml.places import (
    bandwidth_of,
    card_with,
    check_rewired,
    check_shaped,
    disk_at,
    drive_at,
    file_of,
    floor_of,
    is_linked,
    set_link,
    set_medium,
    set_place,
)
from portal.drivers.libvirt.xml.plugged import device_like, element_of, free_port
from portal.drivers.types import CardWas, DeviceModel, NicPlace, NicSpec
from portal.drivers.validation import (
    check_bandwidth,
    check_limits,
    check_mac,
    check_nic,
    check_path,
    check_place,
    check_target,
    check_uuid,
)

#: What libvirt and QEMU say of a tray that the guest holds shut.
_SHUT = ("is locked", "waiting to open tray")


class HotDevices:
    """Changes of one connection's domains; the contract is in `portal.drivers.base`."""

    def __init__(self, connection: libvirt.virConnect) -> None:
        self._connection = connection

    def _get(self, uuid: str) -> libvirt.virDomain:
        return self._connection.lookupByUUIDString(check_uuid(uuid))

    @translated()
    def attach_nic(self, uuid: str, spec: NicSpec, model: DeviceModel, was: CardWas | None = None) -> bool:
        """Attach a card to the definition and to what runs, each as it was there."""
        check_nic(spec)
        if spec.ssh_port:
            raise InvalidSpec("a card on a network of the guest's own is part of its emulator")
        domain = self._get(uuid)
        sides = {flag: parse(text) for flag, text in definitions(domain)}
        # In one call where both get the same, so that they have it at once.
        missing: dict[str, int] = {}
        for flag, text in lacking(sides, spec, model, was, LIVE):
            missing[text] = missing.get(text, 0) | flag
        for text, flags in missing.items():
            with slots():
                domain.attachDeviceFlags(text, flags)
        return bool(domain.isActive())

    @translated()
    def detach_nic(self, uuid: str, mac: str) -> None:
        """Detach a card."""
        check_mac(mac)
        detach(self._get(uuid), lambda domain: card_with(domain, mac), mac)

    @translated()
    def set_link(self, uuid: str, mac: str, up: bool) -> None:
        """Plug a cable in or out."""
        check_mac(mac)

        def plug(card: ET.Element) -> bool:
            changes = is_linked(card) != up
            if changes:
                set_link(card, up)
            return changes

        _update(self._get(uuid), lambda domain: card_with(domain, mac), plug, f"card {mac}")

    @translated()
    def rewire_nic(self, uuid: str, mac: str, to: NicPlace, was: NicPlace) -> None:
        """Bring a card to another network: what runs first, and back when its definition stays."""
        check_mac(mac)
        check_place(to)
        check_place(was)
        domain, cards = self._cards(uuid, mac)
        places = {flag: check_rewired(card, to, was) for flag, card in cards.items()}
        for flag in (LIVE, CONFIG):
            if flag not in cards or places[flag] == to:
                continue
            try:
                _rewire(domain, cards[flag], to, flag)
            except libvirt.libvirtError:
                if flag == CONFIG and places.get(LIVE) == was:
                    _rewire(domain, cards[LIVE], was, LIVE)
                raise

    @translated()
    def change_media(self, uuid: str, target: str, path: str | None, force: bool = False) -> None:
        """Change what is in a drive; in the one that runs first, whose guest may refuse; unless forced."""
        check_target(target)
        if path is not None:
            check_path(path)
        domain, wanted = self._get(uuid), path or ""

        def find(definition: ET.Element) -> ET.Element | None:
            return drive_at(definition, target)

        def put(drive: ET.Element) -> bool:
            changes = file_of(drive) != wanted
            if changes:
                set_medium(drive, wanted)
                need(drive, "target").attrib.pop("tray", None)
            return changes

        def empty_open(drive: ET.Element) -> bool:
            """Empty a tray that the guest opened: only another medium makes libvirt shut it."""
            stands_open = need(drive, "target").get("tray") == "open" and file_of(drive) == wanted != ""
            if stands_open:
                set_medium(drive, "")
            return stands_open

        if wanted:
            self._connection.storageVolLookupByPath(wanted)
        name = f"drive {target}"
        try:
            _update(domain, find, empty_open, name, force=force)
            _update(domain, find, put, name, force=force)
        except libvirt.libvirtError as error:
            if any(words in str(error) for words in _SHUT):
                raise GuestIgnores(str(error)) from error
            raise

    @translated()
    def limit_disk(self, uuid: str, target: str, path: str, limits: Mapping[str, int]) -> None:
        """Set what a disk is limited to."""
        check_target(target)
        check_path(path)
        check_limits(limits)
        domain, flags = self._get(uuid), 0
        for flag, text in definitions(domain):
            there = disk_at(parse(text), target)
            if there is not None and file_of(there) == path:
                flags |= flag
        if not flags:
            raise DeviceNotFound(f"{target} is not {path}")
        domain.setBlockIoTune(target, dict(limits), flags)

    @translated()
    def limit_nic(
        self, uuid: str, mac: str, limits: Mapping[str, int], ran: Mapping[str, int] | None = None
    ) -> None:
        """Set what a card is limited to: in what runs first, and back when either cannot be."""
        check_mac(mac)
        check_bandwidth(limits)
        running = limits if ran is None else ran
        check_bandwidth(running)
        domain, cards = self._cards(uuid, mac)
        for card in cards.values():
            check_shaped(card)
        try:
            if LIVE in cards:
                _shape(domain, cards[LIVE], running, LIVE)
            if CONFIG in cards:
                _shape(domain, cards[CONFIG], limits, CONFIG)
        except libvirt.libvirtError:
            # libvirt limits piece by piece, and leaves what it made before the piece that failed.
            with suppress(libvirt.libvirtError):
                if LIVE in cards:
                    _shape(domain, cards[LIVE], bandwidth_of(cards[LIVE]), LIVE)
            raise

    def _cards(self, uuid: str, mac: str) -> tuple[libvirt.virDomain, dict[int, ET.Element]]:
        """Return a domain and its card of that MAC, by the side that has it. Raises DeviceNotFound."""
        domain = self._get(uuid)
        found = [(flag, card_with(parse(text), mac)) for flag, text in definitions(domain)]
        cards = {flag: card for flag, card in found if card is not None}
        if not cards:
            raise DeviceNotFound(f"there is no card {mac}")
        return domain, cards

    @translated()
    def plug_device(self, uuid: str, kind: str, values: Mapping[str, Any]) -> None:
        """Attach a device to what runs, in a free port where libvirt itself finds no place."""
        text, domain = element_of(kind, values), self._active(uuid)
        running = parse(domain.XMLDesc())
        if device_like(running, kind, values) is not None:
            return
        try:
            with slots():
                domain.attachDeviceFlags(text, LIVE)
        except NoSlot:
            place = free_port(running) if kind == "watchdogs" else None
            if place is None:
                raise
            device = parse(text)
            child(device, "address", **place)
            domain.attachDeviceFlags(ET.tostring(device, encoding="unicode"), LIVE)

    @translated()
    def unplug_device(self, uuid: str, kind: str, values: Mapping[str, Any]) -> None:
        """Take a device from what runs."""
        element_of(kind, values)
        unplug(self._active(uuid), lambda domain: device_like(domain, kind, values), kind)

    def _active(self, uuid: str) -> libvirt.virDomain:
        domain = self._get(uuid)
        if not domain.isActive():
            raise InvalidState("the domain is off")
        return domain


def _shape(domain: libvirt.virDomain, card: ET.Element, limits: Mapping[str, int], flag: int) -> None:
    """Limit a card on one side; what it is promised of its network stays."""
    told = {name.replace("_", "."): value for name, value in limits.items()}
    mac = need(card, "mac").get("address", "")
    domain.setInterfaceParameters(mac, {**told, "inbound.floor": floor_of(card)}, flag)


def _rewire(domain: libvirt.virDomain, card: ET.Element, place: NicPlace, flag: int) -> None:
    set_place(card, place)
    domain.updateDeviceFlags(ET.tostring(card, encoding="unicode"), flag)


def _update(
    domain: libvirt.virDomain,
    find: Find,
    change: Callable[[ET.Element], bool],
    name: str,
    *,
    force: bool = False,
) -> None:
    """Change a device where `change` says that it did: in what runs, then in the definition.

    The rest of its element goes back as it came. What runs can be forced. Raises DeviceNotFound, which calls
    the device `name`.
    """
    found = [(flag, find(parse(text))) for flag, text in definitions(domain)]
    devices = {flag: device for flag, device in found if device is not None}
    if not devices:
        raise DeviceNotFound(f"there is no {name}")
    for flag in (LIVE, CONFIG):
        if flag in devices and change(devices[flag]):
            forced = libvirt.VIR_DOMAIN_DEVICE_MODIFY_FORCE if force and flag == LIVE else 0
            domain.updateDeviceFlags(ET.tostring(devices[flag], encoding="unicode"), flag | forced)
