"""Who may take how much: set limits, follow defaults, read them. Not for: taking, which the ledger does."""

from collections.abc import Mapping, Sequence
from typing import Any

from django.db import transaction
from django.utils.translation import gettext as _

from portal.accounts.backends import may
from portal.accounts.models import Project, User
from portal.audit import services as audit
from portal.core.errors import Denied
from portal.live.publish import publish
from portal.operations import counters, scopes
from portal.operations.models import Counter, DefaultLimit

Limits = Mapping[str, int | None]
RESOURCES: Sequence[str] = [resource.value for resource in Counter.Resource]
#: Above every machine that there is, and far below ledger.ROOF.
HIGHEST = 1 << 53


def why_not(actor: Any, scope: str) -> str:
    """Return why `actor` may not set the limits of `scope`, '' when they may.

    What a project or a person may take is for who administers every project; how a project's share is
    parted among its people is for its own admins. The same sentence explains why there is no form.
    """
    place = scopes.place_of(scope)
    in_project = place.project and scope != f"project:{place.project}"
    if may(actor, "administer", None):
        return ""
    if not in_project:
        return _("Only an admin of every project sets this limit.")
    project = Project.objects.filter(pk=place.project).first()
    if project is None or not may(actor, "administer", project):
        return _("Only an admin of the project sets this limit.")
    return ""


@transaction.atomic
def set_quota(*, actor: Any, scope: str, limits: Limits) -> list[Counter]:
    """Limit what `scope` may take, or for a default what all below it may; None is no limit.

    `limits` by resource; a resource that it does not name is left as it is. A limit below what is taken
    takes nothing away: nothing new fits until it sinks. Returns the counters of `scope` that are beyond
    their limit now. Idempotent. Raises Denied.
    """
    _check(actor, scope, limits)
    if scopes.is_default(scope):
        _set_default(actor, scope, limits)
        return []
    rows = _locked(scope, limits)
    before = _said(rows)
    for row in rows:
        row.limit, row.own = limits[row.resource], True
    Counter.objects.bulk_update(rows, ["limit", "own"])
    _record(actor, scope, before, _said(rows))
    return [row for row in rows if row.limit is not None and row.taken > row.limit]


@transaction.atomic
def follow_default(*, actor: Any, scope: str) -> list[Counter]:
    """Forget the limits of `scope` alone, so that it follows the default again. Returns as set_quota does."""
    _check(actor, scope, {})
    # The default's rows first, as whoever makes a counter locks them.
    above = {row.resource: row.limit for row in _defaults(scopes.default_above(scope), RESOURCES)}
    rows = _locked(scope, RESOURCES)
    before = _said(rows)
    for row in rows:
        row.limit, row.own = above[row.resource], False
    Counter.objects.bulk_update(rows, ["limit", "own"])
    _record(actor, scope, before, _said(rows))
    return [row for row in rows if row.limit is not None and row.taken > row.limit]


def _check(actor: Any, scope: str, limits: Limits) -> None:
    if reason := why_not(actor, scope):
        raise Denied(reason)
    for resource, limit in limits.items():
        if limit is not None and not 0 <= limit <= HIGHEST:
            label = Counter.Resource(resource).label
            raise Denied(_("A limit of %(what)s is a number from 0 upwards.") % {"what": label})


def _locked(scope: str, resources: Any) -> list[Counter]:
    counters.counters([(scope, resource) for resource in resources])
    rows = Counter.objects.select_for_update().filter(scope=scope, resource__in=list(resources))
    return list(rows.order_by("pk"))


def _defaults(scope: str, resources: Any) -> list[DefaultLimit]:
    """Return the rows of a default, locked, having made those that were missing."""
    DefaultLimit.objects.bulk_create(
        (DefaultLimit(scope=scope, resource=resource) for resource in sorted(resources)),
        ignore_conflicts=True,
    )
    rows = DefaultLimit.objects.select_for_update().filter(scope=scope, resource__in=list(resources))
    return list(rows.order_by("pk"))


def _set_default(actor: Any, scope: str, limits: Limits) -> None:
    rows = _defaults(scope, limits)
    before = {row.resource: row.limit for row in rows}
    for row in rows:
        row.limit = limits[row.resource]
    DefaultLimit.objects.bulk_update(rows, ["limit"])
    # In the order of their key, as takers go.
    below = Counter.objects.select_for_update().filter(scope__startswith=f"{scope}:", own=False)
    followers = [
        counter
        for counter in below.filter(resource__in=list(limits)).order_by("pk")
        if scopes.default_above(counter.scope) == scope
    ]
    for counter in followers:
        counter.limit = limits[counter.resource]
    Counter.objects.bulk_update(followers, ["limit"], batch_size=500)
    _record(actor, scope, before, {row.resource: row.limit for row in rows})


def _said(rows: Sequence[Counter]) -> dict[str, Any]:
    return {row.resource: row.limit if row.own else {"default": row.limit} for row in rows}


def _record(actor: Any, scope: str, before: dict[str, Any], after: dict[str, Any]) -> None:
    if before == after:
        return
    name = scopes.titles([scope])[scope]
    audit.record(
        actor=actor, verb="quota.set", target=_target(scope, name), before=before, after=after
    )
    place = scopes.place_of(scope)
    publish(scopes.topic(scope), *([scopes.topic(f"project:{place.project}")] if place.project else []))


def _target(scope: str, name: str) -> Any:
    """Return whom the trail names: a project or person itself, else the scope by its words."""
    place = scopes.place_of(scope)
    if scope == f"project:{place.project}":
        return Project.objects.get(pk=place.project)
    if scope == f"person:{place.person}":
        return User.objects.get(pk=place.person)
    return audit.Rowless("operations.quota", name, pk=scope)
