"""Bring a machine's network card to another network; its MAC and its model stay. Not for: other cards."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.utils.translation import gettext as _

from networks.models import Network, Port
from portal.core.errors import Denied
from portal.drivers.types import NicPlace
from portal.live.publish import publish
from portal.operations.models import Operation
from portal.operations.registry import Kind, StepContext, StepFailed
from portal.operations.states import State
from vms.building import MakeNetwork, page_of_machine
from vms.changes.devices import nics
from vms.changes.devices.shared import DeviceStep, begin, known
from vms.models import Definition, VirtualMachine

REWIRE = "vm.rewire_nic"
#: What a driver says of a card that it cannot change as it is, or that somebody changed meanwhile.
_CODES = {"not_supported": "card_stays", "already_exists": "card_elsewhere"}


class Rewire(DeviceStep):
    """Bring the card to the other network, in what runs too."""

    name, title = "rewire", "Bring the card to the other network"

    def do(self, context: StepContext) -> None:
        names = context.identifiers
        try:
            self.call(context, "rewire_nic", names["uuid"], names["mac"], *_places(names, "to", "back"))
        except StepFailed as failure:
            if failure.code in _CODES:
                raise StepFailed(_CODES[failure.code], failure.raw) from failure
            raise
        self.look(context)

    def undo(self, context: StepContext) -> None:
        names = context.identifiers
        try:
            self.call_if_there(context, "rewire_nic", names["mac"], *_places(names, "back", "to"))
        except StepFailed as failure:
            # What somebody else made of it meanwhile is not this operation's to take back.
            if failure.code not in _CODES:
                raise
        self.look(context)


def _places(names: Mapping[str, Any], *keys: str) -> list[NicPlace]:
    return [NicPlace(**names[key]) for key in keys]


# What may be


def place_of(card: Mapping[str, Any]) -> NicPlace | None:
    """Return what a card of a definition is on, None for one that is on neither a network nor a bridge."""
    kind, source = card.get("type", ""), card.get("source", {})
    if kind not in {"network", "bridge"}:
        return None
    # What runs on a network that is a bridge of the host is of the kind `bridge`, and names both.
    if source.get("network"):
        return NicPlace(network=source["network"], portgroup=source.get("portgroup", ""))
    return NicPlace(bridge=source["bridge"]) if kind == "bridge" and source.get("bridge") else None


def networks_for(actor: Any, machine: VirtualMachine, port: Port) -> QuerySet[Network]:
    """Return the networks that `actor` may bring a card of `machine` to: as for a new one, but its own."""
    return nics.networks_for(actor, machine).exclude(pk=port.network_id)


def why_not(machine: VirtualMachine, port: Port, found: Definition | None) -> str:
    """Return why a card of the portal's stays on its network, '' when it can be brought to another.

    `found` is what `noted.of` returns.
    """
    if reason := nics.why_fixed(port):
        return reason
    if not machine.host.bridges:
        return _("Its host was seen to make no bridges, and every network but a guest's own needs one.")
    if found is None or found.observed_persistent is None:
        return _("The host has not told this machine's settings yet; try again in a moment.")
    cards = _sides(found, port.mac)
    if not cards:
        return _("The machine has this card no more.")
    for card in cards:
        if place_of(card) is None:
            kind = {"kind": card.get("type", "")}
            return _("The card is of the kind %(kind)s, which the portal brings to no network.") % kind
    if len({place_of(card) for card in cards}) > 1:
        return _(
            "The card is on another network now than from the next start on. Switch the machine off first."
        )
    return nics.why_link_stays(port, found)


def _sides(found: Definition, mac: str) -> list[Mapping[str, Any]]:
    """Return a card as it is defined and as it runs, where it is."""
    both = (found.observed_persistent, found.observed_running)
    return [cards[mac] for side in both if mac in (cards := nics.by_mac(side))]


# Asking


def rewire_card(*, actor: Any, machine: VirtualMachine, mac: str, network: Network) -> Operation:
    """Queue that a card of the portal's is on `network`, now and at later starts. Raises Denied."""
    with transaction.atomic():
        current, port = nics.usable_card(actor, machine, mac)
        found = known(current)
        allowed = networks_for(actor, current, port).values("pk")
        # Locked, so that it is not removed before the card's row keeps it.
        chosen = Network.objects.select_for_update().filter(pk=network.pk, pk__in=allowed).first()
        if chosen is None:
            raise Denied(_("This network is not on offer for this card."), field="network")
        if reason := why_not(current, port, found):
            raise Denied(reason)
        back = place_of(_sides(found, mac)[0])
        if back is None:
            raise AssertionError("why_not() let a card pass that is on nothing")
        Port.objects.filter(pk=port.pk).update(joining=chosen)
        return begin(
            actor,
            current,
            REWIRE,
            f"Bring a network card of {current.name} to another network",
            told=[(f"Network of {mac}", port.network.title, chosen.title)],
            names={
                "port": port.pk,
                "mac": mac,
                "to": asdict(NicPlace(network=chosen.spec.name)),
                "back": asdict(back),
            },
            # As it is now: a host that has it not yet makes it so.
            network=asdict(chosen.spec),
        )


def settle(operation: Operation, state: State) -> None:
    """Let the card's row be on the network that the card is on, without the address that it had before."""
    port = Port.objects.filter(pk=operation.identifiers["port"]).first()
    if port is None:
        return
    if state == State.SUCCEEDED and port.joining_id is not None:
        nics.forget_address(port)
        port.network_id, port.observed_address = port.joining_id, None
    port.joining = None
    port.save(update_fields=["network", "joining", "observed_address"])
    publish(operation.subject)


#: Nobody wants a card of last week to change when the host comes back today.
KINDS = (
    Kind(
        REWIRE,
        "Change the network of a card",
        (MakeNetwork(), Rewire()),
        settle=settle,
        page=page_of_machine,
        waits_for_host=False,
    ),
)
