"""Give a machine another network card, one less, or pull a card's cable. Not for: the networks themselves."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.utils.translation import gettext as _

from networks.models import Network, Port
from portal.accounts.backends import may
from portal.core.errors import Denied
from portal.core.stale import Snapshot
from portal.drivers.types import DomainFeature
from portal.live.publish import publish
from portal.operations.models import Operation
from portal.operations.registry import Kind
from portal.operations.states import State
from portal.operations.words import Difference
from vms import hypervisors, noted, placement, power, reach
from vms.building import MakeNetwork, page_of_machine
from vms.changes.devices import showing
from vms.changes.devices.nic_steps import AttachCard, DetachCard, SetLink
from vms.changes.devices.shared import begin, devices, known
from vms.models import CatalogueItem, Definition, VirtualMachine

ADD, REMOVE, LINK = "vm.add_nic", "vm.remove_nic", "vm.set_link"
#: Of a machine; each takes a slot of its bus, and most an address of its network.
MOST_CARDS = 8


# What there is


@dataclass(frozen=True)
class Card:
    """A card as a machine's page shows it; `port` is None for one that the portal did not make."""

    mac: str
    port: Port | None
    #: What it is on, in words, where it is no network of the portal.
    place: str
    linked: bool
    #: It runs without it so far, or its host knows of no such card.
    waits: bool
    missing: bool


def cards_of(machine: VirtualMachine) -> list[Card]:
    """Return the cards of a machine, the portal's first; three queries."""
    ports = reach.ports_of([machine])[machine.uuid]
    found = noted.of(machine)
    defined = by_mac(found.observed_persistent if found else None)
    running = by_mac(found.observed_running if found else None)
    there = {**defined, **running}
    runs = bool(found and found.observed_running)
    cards = [
        Card(
            mac=port.mac,
            port=port,
            place="",
            linked=there.get(port.mac, {}).get("link") != "down",
            waits=runs and port.mac in defined and port.mac not in running,
            missing=found is not None and port.mac not in there and not why_fixed(port),
        )
        for port in ports
    ]
    own = {port.mac for port in ports}
    for mac, told in there.items():
        if mac not in own:
            # What runs names no network where that gave it a function of a device.
            place = _place(told) or _place(defined.get(mac, {}))
            waits = runs and mac not in running
            cards.append(Card(mac, None, place, told.get("link") != "down", waits, missing=False))
    return cards


def _place(card: Mapping[str, Any]) -> str:
    """Return what a card of a definition is on, by libvirt's name for it; '' where it says none."""
    source = card.get("source", {})
    return next((source[name] for name in ("network", "bridge", "dev") if source.get(name)), "")


def by_mac(defined: Mapping[str, Any] | None) -> dict[str, Mapping[str, Any]]:
    """Return the cards of a definition by their MAC, in lower case."""
    return {mac_of(one): one for one in devices(defined, "interfaces")}


def mac_of(card: Mapping[str, Any]) -> str:
    """Return the MAC of a card of a definition, '' for one without."""
    return str(card.get("mac", "")).lower()


def _there(found: Definition | None) -> dict[str, Mapping[str, Any]]:
    """Return the cards of a machine by their MAC: as it is defined, else as it runs."""
    return {**by_mac(found.observed_running), **by_mac(found.observed_persistent)} if found else {}


def _is_linked(found: Definition | None, mac: str) -> bool:
    """Tell whether a card's cable is plugged in, as far as its host said."""
    return _there(found).get(mac, {}).get("link") != "down"


def shown(port: Port, found: Definition | None) -> Snapshot:
    """Return what pages show of a card that `set_link` changes, with the network that it comes to."""
    linked = _link_shown(found, port.mac)
    return {"network": port.network.name, "link": "up" if linked else "down"}


def _link_shown(found: Definition | None, mac: str) -> bool:
    """Tell whether a card's cable is shown as plugged in: as it runs, else as it is defined."""
    sides = (found.observed_running, found.observed_persistent) if found else ()
    there = next((cards[mac] for side in sides if mac in (cards := by_mac(side))), {})
    return there.get("link") != "down"


def is_last(cards: Sequence[Card]) -> bool:
    """Tell whether a machine with these cards has none any more when one is removed."""
    return len(cards) == 1


def shown_last(cards: Sequence[Card]) -> Snapshot:
    """Return what the page of a card says of the machine's others."""
    return {"last": "yes" if is_last(cards) else "no"}


def shown_all(cards: Sequence[Card]) -> Snapshot:
    """Return what the page of all cards shows, by their MAC."""
    return {card.mac: card.port.network.title if card.port else card.place for card in cards}


def differences(before: Snapshot, after: Snapshot) -> list[Difference]:
    """Return in words which cards came and went between two looks at all of them (`shown_all`)."""
    label = _("Network card %(mac)s")
    return [
        Difference(label % {"mac": mac}, before.get(mac) or "", after.get(mac) or "") for mac in sorted(after)
    ]


def why_fixed(port: Port) -> str:
    """Return why a card of the portal's cannot be changed at all, '' when it can."""
    if port.network.kind == Network.Kind.USER:
        return _("This card is a part of the machine's emulator, with its own network; it stays as it is.")
    return ""


def networks_for(actor: Any, machine: VirtualMachine) -> QuerySet[Network]:
    """Return the networks that `actor` may give a card of `machine`.

    What its catalogue item offers now; whoever looks after machines may choose any. Never one that each guest
    has of its own: that is a part of its emulator, from its first start on.
    """
    found = Network.objects.exclude(kind=Network.Kind.USER)
    if may(actor, "operate", machine.project):
        return found
    items = CatalogueItem.objects.restrict(actor, "request").filter(name=machine.item_name, offered=True)
    return found.filter(pk__in=Network.objects.filter(items__in=items).values("pk"))


def why_link_stays(port: Port, found: Definition | None) -> str:
    """Return why the cable of a card of the portal's stays as it is, '' when it can be pulled or plugged in.

    `found` is what `noted.of` returns.
    """
    reasons = (DomainFeature.CHANGE_CARD, DomainFeature.CHANGE_CARD_HOT)
    told = (hypervisors.why_not_seen(found, feature) for feature in reasons)
    return why_fixed(port) or next(filter(None, told), "")


def why_no_more(machine: VirtualMachine) -> str:
    """Return why a machine cannot have another card, '' when it can."""
    if reason := hypervisors.why_not_seen(noted.of(machine), DomainFeature.OWN_CARDS):
        return reason
    if not machine.host.bridges:
        return _("Its host was seen to make no bridges, and every network but a guest's own needs one.")
    if len(cards_of(machine)) >= MOST_CARDS:
        return _("A machine has %(most)d network cards at most.") % {"most": MOST_CARDS}
    return ""


# Asking


def add_card(
    *, actor: Any, machine: VirtualMachine, network: Network, seen: Snapshot | None = None
) -> Operation:
    """Queue another card of a machine on `network`; `seen` is what a page showed of its cards (`shown_all`).

    Raises Changed when a card came or went since, and Denied.
    """
    with transaction.atomic():
        current = power.usable(actor, machine, "edit")
        allowed = networks_for(actor, current).values("pk")
        # Locked, so that it is not removed before the card's row keeps it.
        chosen = Network.objects.select_for_update().filter(pk=network.pk, pk__in=allowed).first()
        if chosen is None:
            raise Denied(_("This network is not on offer for this machine."), field="network")
        showing.check_same(current.name, seen, shown_all(cards_of(current)))
        if reason := why_no_more(current):
            raise Denied(reason)
        port = _draw(current, chosen)
        return begin(
            actor,
            current,
            ADD,
            f"Add a network card to {current.name}",
            told=[("Network card", "", port.mac)],
            names=_names(current, port),
            # As it is now: a host that has it not yet makes it so.
            network=asdict(chosen.spec),
        )


def _draw(machine: VirtualMachine, network: Network) -> Port:
    """Make the row of a card, with a MAC that no other has. Raises Denied when each drawn was taken."""
    for _turn in range(placement.DRAWS):
        values = {"network": network, "host": machine.host, "domain_uuid": machine.uuid}
        try:
            with transaction.atomic():
                return Port.objects.create(mac=placement.mac(), **values)
        except IntegrityError:
            continue
    raise Denied(_("Too many network cards were made at this moment. Nothing was changed; try again."))


def _names(machine: VirtualMachine, port: Port) -> dict[str, Any]:
    return {
        "port": port.pk,
        "mac": port.mac,
        "network": port.network.spec.name,
        "devices": machine.devices,
    }


def _ports(machine: VirtualMachine, mac: str) -> QuerySet[Port]:
    return Port.objects.filter(domain_uuid=machine.uuid, mac=mac)


def has_card(machine: VirtualMachine, mac: str) -> bool:
    """Tell whether a machine has a card of the portal's with this MAC."""
    return _ports(machine, mac).exists()


def usable_card(actor: Any, machine: VirtualMachine, mac: str) -> tuple[VirtualMachine, Port]:
    """Return the machine as it is now, locked, and its card. Raises Denied when it is none to change."""
    current = power.usable(actor, machine, "edit")
    port = _ports(current, mac).first()
    if port is None:
        raise Denied(_("The machine has this card no more."))
    if reason := why_fixed(port):
        raise Denied(reason)
    return current, port


def remove_card(
    *, actor: Any, machine: VirtualMachine, mac: str, seen: Snapshot | None = None
) -> Operation:
    """Queue the end of a card that the portal made; `seen` is what a page showed.

    Raises Changed when the card's link or network is another than was seen, or it is the machine's last one
    by now, and Denied.
    """
    with transaction.atomic():
        current, port = usable_card(actor, machine, mac)
        cards = cards_of(current)
        # That there are more by now frightens nobody.
        last = shown_last(cards) if is_last(cards) else {}
        showing.check(mac, seen, {**shown(port, noted.of(current)), **last})
        title = f"Remove a network card of {current.name}"
        told = [("Network card", f"{port.mac} on {port.network.name}", "")]
        found = noted.of(current)
        sides = (found.observed_persistent, found.observed_running) if found else (None, None)
        was, ran = (by_mac(side).get(mac) for side in sides)
        told_as = {"was": was, "ran": ran, "linked": _is_linked(found, mac)}
        names = {**_names(current, port), **told_as}
        return begin(actor, current, REMOVE, title, told=told, names=names)


def set_link(
    *, actor: Any, machine: VirtualMachine, mac: str, up: bool, seen: Snapshot | None = None
) -> Operation:
    """Queue that the cable of a card is plugged in (`up`) or out; `seen` is what a page showed.

    Raises Changed when the card's link or network is another than was seen, and Denied.
    """
    with transaction.atomic():
        current, port = usable_card(actor, machine, mac)
        found = known(current)
        if reason := why_link_stays(port, found):
            raise Denied(reason)
        if mac not in _there(found):
            raise Denied(_("The machine has this card no more."))
        showing.check(mac, seen, shown(port, found))
        back = _is_linked(found, mac)
        words = {True: "up", False: "down"}
        return begin(
            actor,
            current,
            LINK,
            f"Set the link of a network card of {current.name} {words[up]}",
            told=[(f"Link of {mac}", words[back], words[up])],
            names={**_names(current, port), "up": up, "back": back},
        )


# Settling


def settle_new(operation: Operation, state: State) -> None:
    """Forget the card's row when there is no card."""
    if state != State.SUCCEEDED:
        Port.objects.filter(pk=operation.identifiers["port"]).delete()
    publish(operation.subject)


def settle_removal(operation: Operation, state: State) -> None:
    """Forget the card, and the machine's address where that was its."""
    port = Port.objects.filter(pk=operation.identifiers["port"]).first()
    if port is None or state != State.SUCCEEDED:
        return
    port.delete()
    forget_address(port)
    publish(operation.subject)


def forget_address(port: Port) -> None:
    """Give the machine another card's address, where it has that of a card which has it no more."""
    others = Port.objects.filter(domain_uuid=port.domain_uuid).exclude(mac=port.mac)
    address = others.exclude(observed_address=None).order_by("pk").values_list("observed_address", flat=True)
    of_card = VirtualMachine.objects.filter(uuid=port.domain_uuid, observed_address=port.observed_address)
    of_card.update(observed_address=address.first())


#: Nobody wants a card of last week to come or go when the host comes back today.
KINDS = (
    Kind(
        ADD,
        "Add a network card",
        (MakeNetwork(), AttachCard()),
        settle=settle_new,
        page=page_of_machine,
        waits_for_host=False,
    ),
    Kind(
        REMOVE,
        "Remove a network card",
        (DetachCard(),),
        settle=settle_removal,
        page=page_of_machine,
        waits_for_host=False,
    ),
    Kind(
        LINK, "Set the link of a network card", (SetLink(),), page=page_of_machine, waits_for_host=False
    ),
)
