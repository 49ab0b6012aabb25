"""Limit what a machine's network card receives and sends a second. Not for: limits that its network has."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from django.db import transaction
from django.utils import translation
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from networks.models import Port
from portal.core.errors import Denied
from portal.drivers.types import BANDWIDTH, LIMITED_CARDS, MOST_BANDWIDTH, DomainFeature
from portal.operations.models import Operation
from portal.operations.registry import Kind, StepContext, StepFailed
from portal.operations.words import Difference
from vms import hypervisors
from vms.building import page_of_machine
from vms.changes.devices import nics, showing
from vms.changes.devices.limits import differing
from vms.changes.devices.shared import DeviceStep, begin, known
from vms.models import Definition, VirtualMachine

LIMIT = "vm.limit_card"
#: What people call each; all are typed in MiB, and libvirt counts KiB.
LABELS = {
    "inbound_average": gettext_lazy("Inbound average, MiB/s"),
    "inbound_peak": gettext_lazy("Inbound peak, MiB/s"),
    "inbound_burst": gettext_lazy("Inbound burst, MiB"),
    "outbound_average": gettext_lazy("Outbound average, MiB/s"),
    "outbound_peak": gettext_lazy("Outbound peak, MiB/s"),
    "outbound_burst": gettext_lazy("Outbound burst, MiB"),
}
KIB_OF_MIB = 1024
#: In KiB, since Linux's `tc` counts a burst by 32 bits of bytes.
MOST_BURST = (1 << 22) - 1


class LimitCard(DeviceStep):
    """Set the limits, in what runs too."""

    name, title = "limits", "Limit the card"

    def do(self, context: StepContext) -> None:
        names = context.identifiers
        try:
            self.call(context, "limit_nic", names["uuid"], names["mac"], names["limits"])
        except StepFailed as failure:
            if failure.code != "not_supported":
                raise
            raise StepFailed("card_unlimited", failure.raw) from failure
        self.look(context)

    def undo(self, context: StepContext) -> None:
        names = context.identifiers
        try:
            self.call_if_there(context, "limit_nic", names["mac"], names["back"], names["ran"])
        except StepFailed as failure:
            # What somebody else made of the card meanwhile is not this operation's to take back.
            if failure.code != "not_supported":
                raise
        self.look(context)


# What is


def of_card(card: Mapping[str, Any]) -> dict[str, int]:
    """Return what a card of a definition is limited to, in KiB a second and KiB, 0 for none."""
    found: dict[str, int] = {}
    for name in BANDWIDTH:
        way, part = name.split("_")
        told = (card.get("limits") or {}).get(way) or {}
        # Nobody heeds a peak or a burst without an average.
        found[name] = int(told.get(part, 0)) if told.get("average") else 0
    return found


def limits_of(found: Definition | None, mac: str) -> dict[str, int] | None:
    """Return what a card is defined to be limited to, None before that is known; see `of_card`.

    `found` is what `noted.of` returns.
    """
    defined = nics.by_mac(found.observed_persistent if found else None)
    return of_card(defined[mac]) if mac in defined else None


def is_of_network(runs: Mapping[str, Any], defined: Mapping[str, Any]) -> bool:
    """Tell whether a card that runs has limits, and none in its definition.

    They are those of its network's port group then, or somebody set them on the host for this run alone;
    libvirt does not say which.
    """
    return any(of_card(runs).values()) and not any(of_card(defined).values())


def differences(before: Mapping[str, int], after: Mapping[str, int]) -> list[Difference]:
    """Return in words what differs, in the order of BANDWIDTH."""
    return differing(LABELS, in_words, before, after)


def in_words(_name: str, value: int) -> str:
    """Return a limit as people type it, '' for none."""
    return f"{Decimal(value) / KIB_OF_MIB:f}" if value else ""


# What may be


def why_not(port: Port, found: Definition | None) -> str:
    """Return why a card of the portal's cannot be limited, '' when it can; `found` is that of `noted.of`."""
    reason = nics.why_fixed(port) or hypervisors.why_not_seen(found, DomainFeature.LIMIT_CARD)
    if reason or found is None:
        return reason
    sides = (found.observed_persistent, found.observed_running)
    defined, runs = (nics.by_mac(side).get(port.mac) for side in sides)
    for card in filter(None, (defined, runs)):
        if (kind := card.get("type", "")) not in LIMITED_CARDS:
            return _("The card is of the kind %(kind)s, which libvirt does not limit.") % {"kind": kind}
        if any(not 0 <= value <= MOST_BANDWIDTH for value in of_card(card).values()):
            return _("The card has a limit so enormous that only its host's administrator can change it.")
    if (defined or {}).get("source", {}).get("portgroup") or is_of_network(runs or {}, defined or {}):
        return _(
            "The card's limits come from its network's port group, or somebody set them on the host for this "
            "run alone. The portal leaves them."
        )
    return ""


def limit_card(
    *, actor: Any, machine: VirtualMachine, mac: str, limits: Mapping[str, int], seen: Mapping[str, int]
) -> Operation | None:
    """Queue other limits of a card of the portal's (of each of BANDWIDTH, 0 for none), seen as `seen`.

    Returns None when all of it is so already. Raises Changed when it has others by now, and Denied, with the
    limit as its field, for one that cannot be.
    """
    wanted = {name: limits.get(name, 0) for name in BANDWIDTH}
    _check(wanted)
    with transaction.atomic():
        current, port = nics.usable_card(actor, machine, mac)
        found = known(current)
        if reason := why_not(port, found):
            raise Denied(reason)
        before = limits_of(found, mac)
        if before is None:
            raise Denied(_("The machine has this card no more."))
        runs = nics.by_mac(found.observed_running).get(mac)
        ran = None if runs is None else of_card(runs)
        if before == wanted and ran in (None, wanted):
            return None
        showing.check(mac, {name: seen.get(name, 0) for name in BANDWIDTH}, before)
        # Kept with the request, in no reader's language.
        with translation.override("en"):
            told = [(one.label, one.before, one.after) for one in differences(before, wanted)]
        names = {"port": port.pk, "mac": mac, "limits": wanted, "back": before, "ran": ran}
        return begin(actor, current, LIMIT, f"Limit a network card of {current.name}", told=told, names=names)


def _check(wanted: Mapping[str, int]) -> None:
    """Raise Denied for a number that cannot be, for one without its average, and for a peak below that."""
    for name, value in wanted.items():
        if not 0 <= value <= (MOST_BURST if name.endswith("burst") else MOST_BANDWIDTH):
            raise Denied(_("A limit is a number above zero, and not an enormous one."), field=name)
    for way in ("inbound", "outbound"):
        average, peak, burst = (wanted[f"{way}_{part}"] for part in ("average", "peak", "burst"))
        if (peak or burst) and not average:
            raise Denied(_("A peak or a burst goes with an average."), field=f"{way}_average")
        if peak and peak < average:
            raise Denied(_("A peak is no lower than the average."), field=f"{way}_peak")


#: Nobody wants a card of last week to change when the host comes back today.
KINDS = (Kind(LIMIT, "Limit a network card", (LimitCard(),), page=page_of_machine, waits_for_host=False),)
