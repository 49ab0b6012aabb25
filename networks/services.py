"""Add, name and remove networks. Not for: making them on hosts, which building a machine does."""

from dataclasses import asdict, dataclass
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import ProtectedError
from django.utils.translation import gettext as _

from networks import addressing
from networks.models import Network
from portal.accounts.backends import may
from portal.audit import services as audit
from portal.core.errors import Denied
from portal.hosts.models import Host
from portal.operations.services import begin_operation
from portal.operations.spec import RequestSpec


@dataclass(frozen=True)
class Wanted:
    """A network as somebody describes it; what its kind has no use for is left out."""

    name: str
    title: str
    kind: str
    bridge: str = ""
    subnet: str = ""
    dhcp_start: str = ""
    dhcp_end: str = ""


def _check_admin(actor: Any) -> None:
    if not may(actor, "administer", None):
        raise Denied(_("Only an admin of all projects changes networks."))


def add_network(*, actor: Any, wanted: Wanted) -> Network:
    """Make a network known; a host makes it when the first machine there needs it. Raises Denied."""
    _check_admin(actor)
    try:
        with transaction.atomic():
            # One at a time: overlap is a question to all rows, which no constraint answers.
            list(Network.objects.select_for_update())
            network = Network.objects.create(**_values(wanted))
            audit.record(actor=actor, verb="network.added", target=network, after=_told(network))
    except IntegrityError as error:
        raise Denied(_("There is a network of this name already.")) from error
    return network


def _values(wanted: Wanted) -> dict[str, Any]:
    kind = Network.Kind(wanted.kind)
    values: dict[str, Any] = {
        "name": addressing.check_name(wanted.name),
        "title": _title(wanted.title),
        "kind": kind,
    }
    if kind == Network.Kind.BRIDGE:
        values["bridge"] = addressing.check_bridge(wanted.bridge, kind)
    elif kind in addressing.OWN_SUBNET:
        found = addressing.check_range(wanted.subnet, wanted.dhcp_start, wanted.dhcp_end)
        # The kernel allows 15 characters.
        bridge = wanted.bridge or f"gh-{wanted.name}"[:15].rstrip("-")
        values |= {**asdict(found), "bridge": addressing.check_bridge(bridge, kind)}
    return values


def _title(title: str) -> str:
    if not title.strip() or not title.isprintable():
        raise Denied(_("Say in a few words what people read."))
    return title.strip()


def _told(network: Network) -> dict[str, Any]:
    names = ("title", "kind", "bridge", "address", "prefix", "dhcp_start", "dhcp_end")
    return {name: getattr(network, name) for name in names if getattr(network, name)}


def rename_network(*, actor: Any, network: Network, title: str) -> None:
    """Change what people read; hosts keep the network as it was made. Idempotent. Raises Denied."""
    _check_admin(actor)
    with transaction.atomic():
        current = Network.objects.select_for_update().get(pk=network.pk)
        before, current.title = current.title, _title(title)
        if before == current.title:
            return
        current.save(update_fields=["title"])
        audit.record(
            actor=actor, verb="network.renamed", target=current,
            before={"title": before}, after={"title": current.title},
        )


def why_not_removed(network: Network) -> str:
    """Return why a network cannot be removed now, '' when it can."""
    # A card that is on its way here is none of those that are here.
    count = network.ports.count() + network.arriving.count()
    if count:
        return _("%(count)s network cards of machines are on it.") % {"count": count}
    return ""


def remove_network(*, actor: Any, network: Network, confirm_name: str) -> None:
    """Forget a network that no machine is on, and queue its removal on each host. Raises Denied."""
    _check_admin(actor)
    if confirm_name != network.name:
        raise Denied(_("Type the network's name exactly to remove it."))
    if reason := why_not_removed(network):
        raise Denied(reason)
    try:
        with transaction.atomic():
            audit.record(actor=actor, verb="network.removed", target=network, before=_told(network))
            if network.kind != Network.Kind.USER:
                _queue_removal(actor, network)
            network.delete()
    except ProtectedError as error:
        raise Denied(_("A machine came onto it meanwhile.")) from error


def _queue_removal(actor: Any, network: Network) -> None:
    for host in Host.objects.exclude(accelerator="").filter(bridges=True):
        begin_operation(
            actor=actor,
            project=None,
            spec=RequestSpec(kind="networks.remove", sizes={}, pinned={"network": network.spec.name}),
            subject=f"networks.network:{network.pk}:{host.pk}",
            title=_("Remove the network %(network)s from %(host)s") % {
                "network": network.title, "host": host.name,
            },
            identifiers={"host": host.pk, "network": network.spec.name},
            lane=host.scope,
        )
