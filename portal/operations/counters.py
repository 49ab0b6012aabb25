"""Find the counters of scopes, and make those of quotas that are missing. Not for: taking from them."""

from collections.abc import Collection

from django.db.models import QuerySet

from portal.operations import scopes
from portal.operations.models import Counter, DefaultLimit

Key = tuple[str, str]


def counters(keys: Collection[Key]) -> list[Counter]:
    """Return the counters of `keys` in the order of their key, having made those of quotas that were missing.

    Hosts and pools get theirs when they are enrolled. Joins the caller's transaction. Of racing callers one
    makes a counter; the others wait and find it.
    """
    found = _present(keys)
    absent = set(keys) - {(counter.scope, counter.resource) for counter in found}
    if missing := sorted(key for key in absent if scopes.default_above(key[0])):
        _make(missing)
        found = _present(keys)
    return found


def look(keys: Collection[Key]) -> list[Counter]:
    """Return the counters of `keys` in their order, without making any: one that is missing is not saved.

    At most two queries; for pages, which change nothing.
    """
    found = {(counter.scope, counter.resource): counter for counter in _present(keys)}
    missing = [key for key in keys if key not in found]
    limits = _limits(missing, DefaultLimit.objects.all()) if missing else {}
    made = {
        (scope, resource): Counter(
            scope=scope, resource=resource, limit=limits.get((scope, resource)), own=False
        )
        for scope, resource in missing
    }
    return [(found | made)[key] for key in keys]


def _present(keys: Collection[Key]) -> list[Counter]:
    found = Counter.objects.filter(scope__in={scope for scope, _resource in keys}).order_by("pk")
    return [counter for counter in found if (counter.scope, counter.resource) in keys]


def _limits(keys: Collection[Key], rows: QuerySet[DefaultLimit]) -> dict[Key, int | None]:
    """Return for each of `keys` the limit that the default above it, one of `rows`, says."""
    above = {scopes.default_above(scope) for scope, _resource in keys} - {""}
    said = {(row.scope, row.resource): row.limit for row in rows.filter(scope__in=above).order_by("pk")}
    return {
        (scope, resource): said.get((scopes.default_above(scope), resource)) for scope, resource in keys
    }


def _make(missing: Collection[Key]) -> None:
    # A default's row is made if need be, so that there is something to lock: who changes it meanwhile
    # waits, and then finds the new counters.
    above = sorted({(scopes.default_above(scope), resource) for scope, resource in missing})
    DefaultLimit.objects.bulk_create(
        (DefaultLimit(scope=scope, resource=resource) for scope, resource in above),
        ignore_conflicts=True,
    )
    limits = _limits(missing, DefaultLimit.objects.select_for_update())
    Counter.objects.bulk_create(
        (
            Counter(scope=scope, resource=resource, limit=limits[scope, resource], own=False)
            for scope, resource in missing
        ),
        ignore_conflicts=True,
    )
