"""Add pools to hosts, remove, start and stop them. Not for: what lies in them, nor how a host is enrolled."""

import json
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from django.db import transaction
from django.utils.translation import gettext as _

from portal.core.errors import Denied
from portal.drivers.types import FOLDER_KINDS, SERVED_KINDS, PoolKind
from portal.hosts.models import FoundPool, Host, PoolAttachment, StoragePool, Upload
from portal.hosts.services import check_estate, locked
from portal.hosts.storage import pool_kinds, pool_sources
from portal.hosts.storage.further import COMING, added
from portal.hosts.storage.services import has_plain_name
from portal.hosts.storage.using import Use, uses_by_machines, uses_of
from portal.operations import ledger
from portal.operations.models import Counter, Operation
from portal.operations.services import begin_operation
from portal.operations.spec import RequestSpec
from portal.operations.states import UNFINISHED
from portal.operations.words import not_finished

#: Folders of the system: the host would give one that becomes a pool other permissions.
_SYSTEM = frozenset(
    ("bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "proc", "root", "run", "sbin", "sys", "tmp", "usr")
)
#: Below these only folders of folders are anybody's own.
_SHARED = frozenset({"home", "var"})
#: How many of those that keep a pool are named.
_NAMED = 5


def kinds_of(host: Host) -> list[PoolKind]:
    """Return the kinds of pools that can be added to a host, as it said when it was proven last.

    One that was not asked yet has folders.
    """
    told = host.readiness.get("pool_kinds", [PoolKind.DIR])
    return [kind for kind in PoolKind if kind in told]


def add(
    *,
    actor: Any,
    host: Host,
    name: str,
    kind: str,
    path: str,
    source: str,
    server: str,
    user: str = "",
    secret: str = "",
) -> Operation:
    """Queue a pool of a kind; the host is asked whether it has that. Raises Denied.

    `user` and `secret`, the UUID of a secret of the host's libvirt, are of pools that ask for a password.
    """
    check_estate(actor, "administer", _("add pools"))
    if not has_plain_name(name) or len(name) > 64:
        raise Denied(_("Use letters, digits, dots, hyphens and underscores, at most 64."), field="name")
    pool_sources.check(kind, source, server)
    secret = pool_sources.checked_secret(kind, user, secret)
    with transaction.atomic():
        # All of them: of two hosts that are given the same folder at once, the second is refused.
        list(Host.objects.select_for_update(no_key=True).order_by("pk"))
        current = locked(host)
        _check_place(current, name, kind, path)
        check_alone(current, kind, source, server)
        names = {"pool": name, "kind": kind, "path": path, "source": source, "server": server}
        if secret:
            names |= {"user": user, "secret": secret}
        names["uuid"] = str(uuid.uuid4())
        return begin(actor, current, pool_kinds.ADD, f"Add the pool {name}", names)


def _check_place(host: Host, name: str, kind: str, path: str) -> None:
    """Raise Denied unless a pool can be called `name` and be mounted or made at `path` on the host."""
    others = host.pools.select_related("pool")
    if any(other.pool.name == name for other in others):
        raise Denied(_("The host has a pool of this name already."), field="name")
    if kind in FOLDER_KINDS:
        _check_folder(host, path)
    elif path:
        raise Denied(_("Such a pool has no folder; leave this empty."), field="path")


def _check_folder(host: Host, path: str) -> None:
    """Raise Denied unless a pool can be mounted or made at `path`, as far as the portal knows."""
    pool_sources.check_path(path, "path")
    if is_of_system(path):
        raise Denied(
            _("That is a folder of the system. Use one of the pool's own, such as /var/lib/gatehouse-2."),
            field="path",
        )
    check_no_overlap(path, folders_of(host))


def is_of_system(path: str) -> bool:
    """Tell whether a folder is the system's, or one that everybody's folders lie in."""
    parts = path.strip("/").split("/")
    return parts[0] in _SYSTEM or len(parts) < 2 + (parts[0] in _SHARED)


def folders_of(host: Host) -> list[tuple[str, str]]:
    """Return the name and the folder of each pool that a host has, or is about to get."""
    there = host.pools.exclude(path="").values_list("pool__name", "path")
    coming = Operation.objects.filter(kind__in=COMING, lane=host.scope, state__in=UNFINISHED)
    named = [(names["pool"], names["path"]) for names in coming.values_list("identifiers", flat=True)]
    return [*there, *(pair for pair in named if pair[1])]


def check_no_overlap(path: str, folders: Iterable[tuple[str, str]]) -> None:
    """Raise Denied when one of `folders`, with the names of their pools, is `path`, or in it or around it."""
    for name, folder in folders:
        if _overlap(path, folder):
            words = _("The pool %(pool)s has this folder, or one in it or around it.")
            raise Denied(words % {"pool": name}, field="path")


def check_alone(host: Host, kind: str, source: str, server: str) -> None:
    """Raise Denied when another pool lies on the same of a server, or the same device or group of the host.

    Each pool's host is asked alone who uses a volume: by the other pool, a machine's disk seems nobody's.
    """
    for other in added() if kind != PoolKind.DIR else ():
        names = other.identifiers
        if kind == names["kind"] and _is_shared(host, kind, source, server, names):
            words = _(
                "The pool %(pool)s of %(host)s lies there, or in it or around it. Two pools of the same "
                "volumes are refused: neither host knows whose disks the other one's machines have, and they "
                "could be deleted as nobody's. Choose another place."
            )
            on = Host.objects.filter(pk=names["host"]).first()
            raise Denied(words % {"pool": names["pool"], "host": on or names["host"]}, field="source")
    if kind in SERVED_KINDS:
        _check_unshared(host, kind, source, server)


def _check_unshared(host: Host, kind: str, source: str, server: str) -> None:
    """Raise Denied when another host has what a server serves in a pool that the portal does not know."""
    for found in FoundPool.objects.filter(observed_kind=kind).exclude(host=host).select_related("host"):
        names = {"host": found.host_id, "source": found.observed_source, "server": found.observed_server}
        if _is_shared(host, kind, source, server, names):
            words = _(
                "%(host)s has a pool there, %(pool)s, that the portal does not know: what the domains of "
                "that host have in it would seem nobody's here, and could be deleted."
            )
            raise Denied(words % {"pool": found.observed_name, "host": found.host}, field="source")


def _is_shared(host: Host, kind: str, source: str, server: str, names: Mapping[str, Any]) -> bool:
    """Tell whether a pool of a host would lie on the same as one of its kind that `names` tell of."""
    if kind == PoolKind.ISCSI:
        # A target has its name to itself, whatever its server is called.
        return bool(names["source"] == source)
    if kind in SERVED_KINDS:
        same = names["server"].partition(":")[0].lower() == server.partition(":")[0].lower()
    else:
        same = names["host"] == host.pk
    return same and _overlap(names["source"], source)


def source_of(pool: PoolAttachment) -> str:
    """Return what a further pool lies on, as it was asked for, in a line; '' for a folder."""
    known = Operation.objects.filter(kind__in=COMING, identifiers__uuid=str(pool.pool.uuid))
    added = known.order_by("-pk").first()
    names = added.identifiers if added else {}
    return " ".join(filter(None, (names.get("server", ""), names.get("source", ""))))


def _overlap(one: str, other: str) -> bool:
    """Tell whether two folders are the same, or one is in the other."""
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")


def remove(*, actor: Any, pool: PoolAttachment, confirm_name: str) -> Operation:
    """Queue that a host and the portal forget a pool; what lies in it stays. The host is asked again before.

    Raises Denied with who uses it.
    """
    check_estate(actor, "administer", _("remove pools"))
    if confirm_name != pool.pool.name:
        raise Denied(_("Type the pool's name exactly to remove it."))
    with transaction.atomic():
        current = locked(pool.host)
        ledger.lock([pool.pool.scope])
        if reason := why_not_removed(pool):
            raise Denied(reason)
        names = {"pool": pool.pool.name, "uuid": str(pool.pool.uuid), "path": pool.path}
        names["kind"] = pool.observed_kind
        return begin(actor, current, pool_kinds.REMOVE, f"Remove the pool {pool.pool.name}", names)


def why_not_removed(pool: PoolAttachment) -> str:
    """Return why a pool cannot be removed now, by whom it is used; '' when it can."""
    if pool.taken_over:
        return _("Somebody else made it, and the portal took it over: it can be given back, not removed.")
    first = PoolAttachment.objects.filter(host=pool.host_id).order_by("pk").first()
    if first is not None and first.pk == pool.pk:
        return _("The host was added with this pool; it goes with the host.")
    if StoragePool.objects.get(pk=pool.pool_id).attachments.count() > 1:
        return _("Other hosts have this pool as well.")
    if reason := why_uploading(pool):
        return reason
    # A copy of an image is a copy: the image lies in the other pools.
    images = {path for copy in pool.images.select_related("image") for path in copy.paths}
    volumes = pool.volumes.exclude(observed_path__in=images).select_related("pool__pool")
    return why_busy(pool, uses_of(list(volumes)))


def why_uploading(pool: PoolAttachment) -> str:
    """Return who uploads a file into a pool, in a sentence; '' for nobody."""
    uploads = Upload.objects.filter(pool=pool).exclude(state=Upload.State.DONE)
    coming = uploads.select_related("person").first()
    if coming is None:
        return ""
    words = _("%(person)s uploads %(name)s into it; wait for that, or throw it away.")
    return words % {"person": coming.person, "name": coming}


def why_busy(pool: PoolAttachment, uses: Mapping[int, list[Use]]) -> str:
    """Return which of `uses`, promised disks or work keep a pool as it is; '' for none."""
    users = {use.words: None for found in uses.values() for use in found}
    if users:
        told = {"users": ", ".join(list(users)[:_NAMED])}
        return _("What is in it is in use: %(users)s.") % told
    work = Operation.objects.filter(lane=pool.host.scope, state__in=UNFINISHED)
    word = json.dumps(pool.pool.name)
    named = next((one for one in work if word in json.dumps(one.identifiers)), None)
    if named:
        return not_finished(named)
    counters = Counter.objects.filter(scope=pool.pool.scope)
    return _("Disks in it are promised to machines.") if any(one.taken for one in counters) else ""


def start(*, actor: Any, pool: PoolAttachment) -> Operation:
    """Queue that a pool is started, and looked into. Raises Denied."""
    check_estate(actor, "operate", _("start pools"))
    return _run(actor, pool, pool_kinds.START, f"Start the pool {pool.pool.name}")


def stop(*, actor: Any, pool: PoolAttachment) -> Operation:
    """Queue that a pool is stopped; the host is asked again who uses it before. What lies in it stays.

    Raises Denied with who uses it, be it off: it could not be switched on meanwhile.
    """
    check_estate(actor, "operate", _("stop pools"))
    with transaction.atomic():
        locked(pool.host)
        ledger.lock([pool.pool.scope])
        if reason := why_not_stopped(pool):
            raise Denied(reason)
        return _run(actor, pool, pool_kinds.STOP, f"Stop the pool {pool.pool.name}")


def set_autostart(*, actor: Any, pool: PoolAttachment, on: bool) -> Operation:
    """Queue that a pool starts with its host from now on, or not; now it goes on as it is. Raises Denied."""
    check_estate(actor, "operate", _("change pools"))
    title = f"{'Start' if on else 'Do not start'} the pool {pool.pool.name} with its host"
    return _run(actor, pool, pool_kinds.AUTOSTART, title, on=on)


def why_not_stopped(pool: PoolAttachment) -> str:
    """Return why a pool cannot be stopped now, by which machines it is used; '' when it can."""
    volumes = pool.volumes.select_related("pool__pool")
    return why_busy(pool, uses_by_machines(list(volumes)))


def _run(actor: Any, pool: PoolAttachment, kind: str, title: str, **more: Any) -> Operation:
    names = {"pool": pool.pool.name, "uuid": str(pool.pool.uuid), "attachment": pool.pk, **more}
    return begin(actor, pool.host, kind, title, names, pool.topic)


def begin(
    actor: Any, host: Host, kind: str, title: str, names: dict[str, Any], subject: str = ""
) -> Operation:
    return begin_operation(
        actor=actor,
        project=None,
        spec=RequestSpec(kind=kind, sizes={}, pinned={**names, "host": host.name}),
        subject=subject or f"hosts.pool:{host.pk}:{names['pool']}",
        title=title,
        identifiers={**names, "host": host.pk},
        lane=host.scope,
    )
