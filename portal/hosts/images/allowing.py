"""Allow private networks that images are fetched from. Not for: what a fetch connects to (`ranges`)."""

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from portal.audit import services as audit
from portal.core.errors import Denied
from portal.hosts.images import ranges
from portal.hosts.images.models import ImportNetwork
from portal.hosts.images.ranges import Network
from portal.hosts.services import check_estate

#: How many admins may allow; more is no list that anybody reads.
MOST = 100
LONGEST_REASON = 200


class Unconfirmed(Denied):
    """Nobody agreed yet to what follows: `effects` are sentences, `network` is what to agree to."""

    def __init__(self, network: Network, effects: Sequence[str]) -> None:
        super().__init__(_("Nothing is allowed yet: look at what follows, and say so again if you mean it."))
        self.network, self.effects = str(network), effects


def installed() -> Sequence[Network]:
    """Return the networks that whoever runs the portal allows by GATEHOUSE_IMPORT_NETWORKS."""
    found: Sequence[Network] = settings.IMPORT_NETWORKS
    return found


def opened() -> list[Network]:
    """Return the networks that admins allow now."""
    return [ipaddress.ip_network(text) for text in ImportNetwork.objects.values_list("network", flat=True)]


def allow(*, actor: Any, network: str, reason: str, agreed: str = "") -> ImportNetwork:
    """Let images be fetched from a private network from now on.

    Raises Denied, with the field that stands in the way, and Unconfirmed until the actor `agreed` to this
    very network by what that told.
    """
    check_estate(actor, "administer", _("allow networks"))
    wanted = _checked(network.strip())
    why = " ".join(reason.split())
    if not 1 <= len(why) <= LONGEST_REASON:
        words = _("Say why, in at most %(most)d letters: others read it.") % {"most": LONGEST_REASON}
        raise Denied(words, field="reason")
    try:
        with transaction.atomic():
            rows = ImportNetwork.objects.select_related("person")
            others = {ipaddress.ip_network(row.network): row for row in rows}
            _check_known(wanted, others)
            if len(others) >= MOST:
                raise Denied(_("There are %(most)d already. Remove what nobody needs.") % {"most": MOST})
            if agreed != str(wanted):
                raise Unconfirmed(wanted, _effects(wanted, list(others)))
            made = ImportNetwork.objects.create(network=str(wanted), reason=why, person=actor)
            after = {"network": made.network, "reason": why}
            audit.record(actor=actor, verb="image.network_allowed", target=made, after=after)
    except IntegrityError as error:
        raise Denied(_("Somebody allowed it meanwhile."), field="network") from error
    return made


def take_back(*, actor: Any, network: ImportNetwork, confirm_name: str) -> None:
    """Let nothing be fetched from a network any more, from the next connection on. Raises Denied."""
    check_estate(actor, "administer", _("remove allowed networks"))
    if confirm_name != network.network:
        raise Denied(_("This is not the network. Nothing was done."))
    with transaction.atomic():
        current = ImportNetwork.objects.select_for_update().filter(pk=network.pk).first()
        if current is None:
            raise Denied(_("Somebody removed %(network)s meanwhile.") % {"network": network})
        before = {"network": current.network, "reason": current.reason}
        audit.record(actor=actor, verb="image.network_taken_back", target=current, before=before)
        current.delete()


def still_allowed(network: ImportNetwork) -> list[str]:
    """Return in sentences what of a network is allowed also when it is taken back."""
    this = ipaddress.ip_network(network.network)
    others = [other for other in opened() if other != this]
    found = []
    if outer := ranges.lies_in(this, installed()):
        words = _("All of it stays allowed by the portal's settings, which name %(network)s.")
        found.append(words % {"network": outer})
    if outer := ranges.lies_in(this, others):
        found.append(_("All of it stays allowed within %(network)s.") % {"network": outer})
    inner = ranges.held_by(this, [*installed(), *others])
    if inner:
        found.append(_("Of it stays allowed: %(networks)s.") % {"networks": ", ".join(map(str, inner))})
    return found


def _checked(text: str) -> Network:
    """Return the network that somebody typed. Raises Denied for what is none, or must stay closed."""
    found = ranges.parsed(text)
    if found is None:
        words = _(
            "This is no network. Write an address and how many of its bits are the network's: 10.20.0.0/16, "
            "fd12:3456::/32, or 10.20.0.5/32 for one address alone."
        )
        raise Denied(words, field="network")
    typed = ipaddress.ip_address(text.partition("/")[0])
    told = {"network": found, "typed": text, "bits": found.prefixlen, "most": found.max_prefixlen}
    if typed != found.network_address:
        words = _(
            "%(typed)s names an address within a network: behind its first %(bits)d bits all must be 0. The "
            "network is %(network)s; that address alone is %(address)s/%(most)d."
        )
        raise Denied(words % (told | {"address": typed}), field="network")
    if reason := _why_closed(found):
        raise Denied(reason % told, field="network")
    return found


def _why_closed(network: Network) -> str:
    """Return why a network cannot be allowed here, '' when it can; with `%(network)s` in it."""
    if ranges.lies_in(network, ranges.OWN):
        return _(
            "%(network)s is the portal's own machine, where its database and whatever trusts that machine "
            "answer. It stays closed."
        )
    if ranges.lies_in(network, ranges.METADATA):
        return _(
            "%(network)s is of one cable alone (link-local), where clouds tell their machines passwords and "
            "keys, or another address by which they do. It stays closed."
        )
    if ranges.lies_in(network, ranges.PRIVATE):
        return ""
    if ranges.held_by(network, [*ranges.PRIVATE, *ranges.CLOSED]):
        return _(
            "%(network)s is too wide: it holds more than one private network, or what must stay closed, such "
            "as the portal's own machine. Allow the network that the server is in."
        )
    if ranges.is_public(network[0]) and ranges.is_public(network[-1]):
        return _("%(network)s is public: images are fetched from there without this.")
    return _(
        "%(network)s is no private network. Those are within 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, "
        "100.64.0.0/10 and fc00::/7; others are allowed by whoever runs the portal, by "
        "GATEHOUSE_IMPORT_NETWORKS."
    )


def _check_known(wanted: Network, rows: Mapping[Network, ImportNetwork]) -> None:
    if outer := ranges.lies_in(wanted, installed()):
        words = _("The portal's settings allow this already: they name %(network)s.")
        raise Denied(words % {"network": outer}, field="network")
    outer = ranges.lies_in(wanted, list(rows))
    if outer is None:
        return
    told = {"network": outer, "person": rows[outer].person.username, "reason": rows[outer].reason}
    if outer == wanted:
        words = _("%(person)s allowed %(network)s already: %(reason)s")
    else:
        words = _("It lies in %(network)s, which %(person)s allowed already: %(reason)s")
    raise Denied(words % told, field="network")


def _effects(wanted: Network, others: Sequence[Network]) -> list[str]:
    """Return in sentences what follows when a network is allowed."""
    count = wanted.num_addresses
    addresses = ngettext(
        "Images are fetched from %(network)s, which is one address.",
        "Images are fetched from every address of %(network)s: that is %(count)s of them.",
        count,
    ) % {"network": wanted, "count": f"{count:,}" if count < 1 << 40 else f"2^{count.bit_length() - 1}"}
    found = [
        addresses,
        _(
            "Whatever answers there by http or https and does not ask who comes can be reached by an import, "
            "also when a server elsewhere leads on to it. What comes is thrown away unless its SHA-256 is "
            "the one that was told."
        ),
    ]
    if closed := ranges.held_by(wanted, ranges.CLOSED):
        words = _("Still closed in it: %(networks)s, by which clouds tell their machines passwords.")
        found.append(words % {"networks": ", ".join(str(one.network_address) for one in closed)})
    if inner := ranges.held_by(wanted, others):
        words = _("Of it are allowed already, and stay so when this is removed: %(networks)s.")
        found.append(words % {"networks": ", ".join(map(str, inner))})
    return found
