"""Who shares a volume on its host, asked of the host now. Not for: what the portal knows (`storage.using`).

Domains and volumes count that the portal does not know. What lies in a pool that is not active is not seen.
"""

from collections.abc import Callable, Iterable, Mapping
from posixpath import basename
from typing import Any

from portal.drivers.types import names_of
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
    standing = stacked(ask)
    return sorted(users.union(*(standing[known] for known in _same(ask, path, standing))))


def _same(ask: Ask, path: str, files: Iterable[str]) -> list[str]:
    """Return which of `files` are the file at `path`, by other links to its folder too. Raises StepFailed."""
    names = names_of(path)
    # Most often there is none, and the host is not asked.
    alike = [one for one in files if basename(one) == basename(path) and one not in names]
    real = ask("canonical", (path, *alike)) if alike else {}
    return [one for one in files if one in names or (one in real and real[one] == real[path])]
