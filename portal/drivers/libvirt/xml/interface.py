"""The <interface> element."""

from collections.abc import Iterator, Mapping
from itertools import zip_longest
from typing import Any, TypeVar
from xml.etree import ElementTree as ET

from portal.drivers.errors import AlreadyExists, InvalidSpec
from portal.drivers.inspection import Kind, changed, inspect
from portal.drivers.libvirt.xml.build import child, need, parse, serialise
from portal.drivers.libvirt.xml.places import card_with, network_of, place_of, set_place
from portal.drivers.types import CardWas, DeviceModel, NicPlace, NicSpec

#: Every system since 2009 or so has a driver for the Intel 82574L.
_CARDS = {DeviceModel.PARAVIRTUAL: "virtio", DeviceModel.EMULATED: "e1000e"}
#: What libvirt calls a card's device of the host as long as it runs.
_GENERATED = ("vnet", "macvtap", "macvlan")
Side = TypeVar("Side")


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


def lacking(
    sides: Mapping[Side, ET.Element],
    spec: NicSpec,
    model: DeviceModel,
    was: CardWas | None,
    live: Side,
) -> Iterator[tuple[Side, str]]:
    """Yield the card alone for each of a domain's definitions that lacks it, as it `was` there, or else new.

    `live` is the side of what runs. Raises AlreadyExists before the first where one of them has that MAC on
    something else.
    """
    told_of = {side: _told(was, side == live) for side in sides}
    cards = {side: card_with(domain, spec.mac) for side, domain in sides.items()}
    there = [card for card in cards.values() if card is not None]
    on = {_place_of(told) for told in told_of.values() if told}
    for found in there:
        if network_of(found) != spec.network and place_of(found) not in on:
            raise AlreadyExists(f"{spec.mac} is on {network_of(found) or 'something else'} already")
    for side, card in cards.items():
        if card is None and (told := told_of[side]):
            yield side, _again(spec.mac, told, next(iter(there), None), sides[side])
        elif card is None:
            yield side, InterfaceElement.to_xml(spec, model)


def _told(was: CardWas | None, runs: bool) -> Mapping[str, Any] | None:
    """Return what a card was in what runs, or in the definition; where it was on one side alone, as there."""
    if was is None:
        return None
    return (was.ran or was.defined) if runs else (was.defined or was.ran)


def _place_of(told: Mapping[str, Any]) -> NicPlace | None:
    """Return what a card is on, as it was understood."""
    card = ET.Element("interface", type=str(told.get("type", "")))
    child(card, "source", **{name: str(value) for name, value in told.get("source", {}).items()})
    return place_of(card)


def _again(mac: str, told: Mapping[str, Any], beside: ET.Element | None, domain: ET.Element) -> str:
    """Return a card that `domain` had as it is `told`, alone, for it to have again.

    Beyond what is understood it is like `beside`, what another definition has of it still. Its slot and its
    place in the order of boot are left out where another device has them by now. Raises InvalidSpec when it
    was another card.
    """
    if str(told.get("mac", "")).lower() != mac:
        raise InvalidSpec(f"{mac} was {told.get('mac')}")
    kept = {name: value for name, value in told.items() if not _is_taken(name, value, domain)}
    present = "" if beside is None else ET.tostring(beside, encoding="unicode")
    text = f"<domain><devices>{present}</devices></domain>".encode()
    found = inspect(Kind.DOMAIN, text).understood.get("devices", {}).get("interfaces", [None])
    whole = changed(Kind.DOMAIN, text, {"devices": {"interfaces": [_instead(found[0], kept)]}})
    card = need(parse(whole), "devices/interface")
    if (place := place_of(card)) is not None:
        # What ran was told of its network what it is told anew, as its port's ID.
        set_place(card, place)
    return serialise(card)


def _instead(present: Any, wanted: Any) -> Any:
    """Return the change (see `inspection.changed`) that makes `wanted` of what is understood of a card."""
    if isinstance(present, Mapping) and isinstance(wanted, Mapping):
        return {name: _instead(present.get(name), wanted.get(name)) for name in {**present, **wanted}}
    if isinstance(present, list) and isinstance(wanted, list):
        return [_instead(one, other) for one, other in zip_longest(present, wanted)]
    return wanted


def _is_taken(name: str, value: Any, domain: ET.Element) -> bool:
    """Tell whether a card cannot have a value in `domain` now, or is given it anew."""
    if name == "target":
        return str(value).startswith(_GENERATED)
    if name == "address":
        return any(_slot(one.attrib) == _slot(value) for one in domain.iterfind("devices/*/address"))
    if name == "boot_order":
        # Nor beside the order by kinds of devices, which libvirt adds where no device is in an order.
        return domain.find("os/boot") is not None or any(
            one.get("order") == str(value) for one in domain.iterfind("devices/*/boot")
        )
    return False


def _slot(address: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(address.get(name)) for name in ("type", "domain", "bus", "slot", "function"))
