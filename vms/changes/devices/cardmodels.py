"""Change the model of a machine's network card, from its next start on. Not for: its network (`rewiring`)."""

from collections.abc import Mapping
from typing import Any

from django.db import transaction
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from networks.models import Port
from portal.core.errors import Denied
from portal.core.stale import Snapshot
from portal.operations.models import Operation
from portal.operations.registry import Kind
from vms import settings
from vms.building import page_of_machine
from vms.changes.devices import nics, redefining, rewiring, showing
from vms.changes.devices.buses import why_unlike
from vms.changes.devices.shared import begin, known
from vms.models import Definition, VirtualMachine
from vms.settings.model import Choices

MODEL = "vm.set_card_model"
#: What QEMU has had on both boards for long; no host says which of them it has.
WORDS: Choices = [
    ("virtio", gettext_lazy("virtio, the fastest; the guest needs its driver")),
    ("e1000e", gettext_lazy("e1000e (Intel 82574L), which systems since 2009 know")),
    ("e1000", gettext_lazy("e1000 (Intel 82540EM), for older systems")),
    ("rtl8139", gettext_lazy("rtl8139 (Realtek), for very old systems, and slow")),
]
#: Those that fit each other's slots: another one needs a slot of the older kind.
_PCIE = frozenset({"virtio", "e1000e"})


def model_of(port: Port, found: Definition | None) -> str:
    """Return the model that a card is defined with, '' before the host told it."""
    return str(_own(found, port.mac).get("model", ""))


def shown(port: Port, found: Definition | None) -> Snapshot:
    """Return what pages show of a card that `set_model` changes."""
    return {"model": model_of(port, found)}


def waits(port: Port, found: Definition | None) -> bool:
    """Tell whether a card is of another model as long as its machine runs."""
    running = nics.by_mac(found.observed_running if found else None).get(port.mac)
    return running is not None and running.get("model", "") != model_of(port, found)


def _own(found: Definition | None, mac: str) -> Mapping[str, Any]:
    return nics.by_mac(found.observed_persistent if found else None).get(mac, {})


def choices(port: Port, found: Definition | None) -> Choices:
    """Return the other models that a card could be of. `found` is what `noted.of` returns."""
    return [one for one in WORDS if one[0] != model_of(port, found)]


def why_fixed(machine: VirtualMachine, port: Port, found: Definition | None) -> str:
    """Return why a card stays of its model, '' when it can be of another."""
    if reason := nics.why_fixed(port):
        return reason
    if found is None or found.observed_persistent is None:
        return _("The host has not told this machine's settings yet; try again in a moment.")
    own = _own(found, port.mac)
    if not own:
        return _("The machine has this card no more.")
    if rewiring.place_of(own) is None:
        kind = {"kind": own.get("type", "")}
        return _("The card is of the kind %(kind)s, which the portal leaves as it is.") % kind
    return why_unlike(settings.ground_of(found.observed_persistent, machine.host.readiness))


def set_model(
    *, actor: Any, machine: VirtualMachine, mac: str, model: str, seen: Snapshot | None = None
) -> Operation | None:
    """Queue that a card of the portal's is of another model from its next start on.

    `seen` is what a page showed. Returns None when it is so already. Raises Changed when the card is of
    another model than was seen, and Denied.
    """
    with transaction.atomic():
        current, port = nics.usable_card(actor, machine, mac)
        found = known(current)
        if reason := why_fixed(current, port, found):
            raise Denied(reason)
        if model == model_of(port, found):
            return None
        showing.check(mac, seen, shown(port, found))
        if model not in dict(choices(port, found)):
            raise Denied(_("The machine cannot have a card of that model."), field="model")
        own, before = _own(found, mac), model_of(port, found)
        # Where both fit, the card stays in its slot, and keeps its name in the guest.
        moved: dict[str, Any] = {} if {before, model} <= _PCIE else {"address": None}
        back = {"address": own.get("address")} if moved else {}
        return begin(
            actor,
            current,
            MODEL,
            f"Change the model of a network card of {current.name}",
            told=[(f"Model of {mac}", before, model)],
            names={
                "digest": found.observed_digest,
                "wish": redefining.wish(redefining.CARDS, mac, {"model": model, **moved}),
                "back": redefining.wish(redefining.CARDS, mac, {"model": before or None, **back}),
            },
        )


#: Nobody wants a card of last week to change when the host comes back today.
KINDS = (
    Kind(
        MODEL,
        "Change the model of a network card",
        (redefining.RedefineDevice(),),
        page=page_of_machine,
        waits_for_host=False,
    ),
)
