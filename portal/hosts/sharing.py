"""Who shares a volume on its host, asked of the host now. Not for: what the portal knows (`storage.using`).

Domains and volumes count that the portal does not know. What lies in a pool that is not active is not seen.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from portal.drivers.types import names_of, users_among
from portal.operations.registry import StepFailed

#: Calls a verb of the host's driver with its arguments and returns the answer. Raises StepFailed.
Ask = Callable[..., Any]
#: What tells that there is nothing to look at, in words of machines and of volumes.
_NO_POOL = frozenset({"pool_not_found", "pool_inactive", "volume_pool_gone"})
_NO_VOLUME = frozenset({"volume_not_found", "volume_gone"})


def stacked(ask: Ask) -> Mapping[str, list[str]]:
    """Return the names of the volumes that stand on a file, by that file, of all pools. Raises StepFailed."""
    found: dict[str, list[str]] = {}
    for pool in ask("list_pools"):
        try:
            volumes = ask("list_volumes", pool.name)
        except StepFailed as failure:
            if failure.code not in _NO_POOL:
                raise
            continue
        for info in volumes:
            if info.backing_path:
                found.setdefault(info.backing_path, []).append(info.name)
    return found


def users_of(ask: Ask, pool: str, name: str) -> list[str]:
    """Return the domains that have a volume for a disk and the volumes that stand on it, by name.

    Nobody uses one that is gone. Raises StepFailed.
    """
    try:
        path = ask("volume_info", pool, name).path
        users = set(ask("volume_users", pool, name))
    except StepFailed as failure:
        if failure.code not in _NO_VOLUME:
            raise
        return []
    named = [(user, {file}) for file, standing in stacked(ask).items() for user in standing]
    return sorted(users.union(users_among(names_of(path), named, partial(ask, "canonical"))))
