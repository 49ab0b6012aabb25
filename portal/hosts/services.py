"""Enrol hosts, import images, maintenance. Not for: what the watcher sees."""

import json
import uuid
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from django.db import IntegrityError, transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from portal.accounts.backends import may
from portal.audit import services as audit
from portal.core.errors import Denied
from portal.drivers.types import POOL_PREFIX, DeviceModel
from portal.hosts.addresses import check_jump, check_pool_path, check_uri
from portal.hosts.images import builders
from portal.hosts.images.values import BEING_DELETED, BEING_MADE
from portal.hosts.models import Host, Image
from portal.live.publish import publish
from portal.operations.models import Operation
from portal.operations.services import begin_operation
from portal.operations.spec import RequestSpec
from portal.operations.states import UNFINISHED

ENROL, GREET = "hosts.enrol", "hosts.greet"
POOL_NAMESPACE = uuid.UUID("9b2f0a4e-8c55-4d0e-9e0c-5a4f4b7f2d10")


def check_estate(actor: Any, action: str, what: str) -> None:
    """Raise Denied unless `actor` holds `action` in every project; `what` is the rest of "You may not …"."""
    if not may(actor, action, None):
        raise Denied(_("You may not %(what)s: that needs a role in every project.") % {"what": what})


def locked(host: Host) -> Host:
    """Return the row of `host` as it is now, locked for a change. Raises Denied when it was removed."""
    # Not the key: rows that point to it (a machine's, committed at the same moment) need not wait.
    current = Host.objects.select_for_update(no_key=True).filter(pk=host.pk).first()
    if current is None:
        raise Denied(_("The host %(host)s was removed meanwhile.") % {"host": host.name})
    return current


def enrol_host(*, actor: Any, name: str, uri: str, pool_path: str, begun_by: str = "") -> Operation:
    """Add a host and queue what makes it ready; of a host by SSH only its key is fetched, to be confirmed.

    `begun_by` names the part of the portal that does it by itself: the trail says that, not `actor`. Raises
    Denied for a name or URI that is known already, and for an address or folder that is no plain one.
    """
    check_estate(actor, "administer", _("enrol hosts"))
    check_uri(uri)
    check_pool_path(pool_path)
    try:
        with transaction.atomic():
            host = Host.objects.create(name=name, uri=uri)
            audit.record(actor=begun_by or actor, verb="host.enrolled", target=host, after={"uri": uri})
            begin = _greet if host.by_ssh else _begin
            return begin(actor, host, pool_path, begun_by)
    except IntegrityError as error:
        raise Denied(_("A host of this name or address is enrolled already.")) from error


def greet_host(*, actor: Any, host: Host, begun_by: str = "") -> Operation:
    """Fetch a host's SSH key again: after a failure, or because it changed. Raises Denied."""
    check_estate(actor, "administer", _("enrol hosts"))
    if not host.by_ssh:
        raise Denied(_("This host is not reached by SSH; it has no host key."))
    return _greet(actor, host, _path(host), begun_by)


def confirm_host_key(*, actor: Any, host: Host, fingerprint: str) -> Operation | None:
    """Trust the key that the host offered and the actor saw by its `fingerprint`; enrol a host that is new.

    Returns the enrolment, None when the host was enrolled before. Raises Denied when the key offered is
    another one by now.
    """
    check_estate(actor, "administer", _("confirm host keys"))
    with transaction.atomic():
        current = locked(host)
        if not current.offered_fingerprint:
            raise Denied(_("There is no host key to confirm; fetch it first."))
        if current.offered_fingerprint != fingerprint.strip():
            raise Denied(_("The host shows another key than the one that you looked at; look at it again."))
        before = {"fingerprint": current.fingerprint}
        current.host_key = current.offered_host_key
        current.save(update_fields=["host_key"])
        after = {"fingerprint": current.fingerprint}
        audit.record(
            actor=actor, verb="host.key_confirmed", target=current, before=before, after=after
        )
        publish(current.topic)
        return None if current.accelerator else _begin(actor, current, _path(current))


def enrol_again(*, actor: Any, host: Host, pool_path: str = "", begun_by: str = "") -> Operation:
    """Prove the host again and bring images that are new. Idempotent. Raises Denied.

    `pool_path` counts only for a host whose first enrolment ended before it had a pool; `begun_by` is as in
    `enrol_host`.
    """
    check_estate(actor, "administer", _("enrol hosts"))
    if host.by_ssh and not host.host_key:
        raise Denied(_("Confirm the host's key first; nothing connects before."))
    return _begin(actor, host, _path(host, pool_path), begun_by)


def _path(host: Host, given: str = "") -> str:
    """Return the folder of the host's pool: the one it has, else `given`, else the one asked for last.

    Raises Denied.
    """
    attachment = host.pools.order_by("pk").first()
    if attachment is not None:
        return attachment.path
    if given:
        return check_pool_path(given)
    kinds = (ENROL, GREET)
    last = Operation.objects.filter(subject=host.topic, kind__in=kinds).order_by("-pk").first()
    if last is None:
        raise Denied(_("This host never got a pool; enrol it from the command line with --pool."))
    return last.frozen["pinned"]["pool"]["path"]


def _begin(actor: Any, host: Host, pool_path: str, begun_by: str = "") -> Operation:
    return _queue(ENROL, f"Enrol {host.name}", actor, host, pool_path, begun_by)


def _greet(actor: Any, host: Host, pool_path: str, begun_by: str = "") -> Operation:
    return _queue(GREET, f"Ask {host.name} for its key", actor, host, pool_path, begun_by)


def _queue(kind: str, title: str, actor: Any, host: Host, pool_path: str, begun_by: str) -> Operation:
    # By host and folder: a portal that is installed anew finds its pool, another portal has another.
    identity = uuid.uuid5(POOL_NAMESPACE, f"{host.uri} {pool_path}")
    pool = {"name": f"{POOL_PREFIX}{str(identity)[:6]}", "uuid": str(identity), "path": pool_path}
    with transaction.atomic():
        locked(host)
        return begin_operation(
            actor=actor,
            project=None,
            spec=RequestSpec(kind=kind, sizes={}, pinned={"pool": pool}),
            subject=host.topic,
            title=title,
            identifiers={"host": host.pk},
            lane=host.scope,
            begun_by=begun_by,
        )


def set_maintenance(*, actor: Any, host: Host, on: bool, reason: str = "") -> None:
    """Keep new machines off a host, or let them on again. Idempotent. Raises Denied."""
    check_estate(actor, "operate", _("change hosts"))
    if on and not reason.strip():
        raise Denied(_("Say why the host goes into maintenance."))
    with transaction.atomic():
        current = locked(host)
        before = {"maintenance": current.maintenance, "reason": current.maintenance_reason}
        current.maintenance, current.maintenance_reason = on, reason.strip() if on else ""
        current.save(update_fields=["maintenance", "maintenance_reason"])
        audit.record(
            actor=actor,
            verb="host.maintenance",
            target=current,
            before=before,
            after={"maintenance": on, "reason": current.maintenance_reason},
        )
        publish(current.topic)


def deprecate_image(*, actor: Any, image: Image, reason: str) -> None:
    """Let nothing new be made from an image, with the reason that people are told. Idempotent.

    Machines made from it and requests that wait are left as they are. Raises Denied.
    """
    check_estate(actor, "administer", _("change images"))
    reason = reason.strip()
    if not 1 <= len(reason) <= 200:
        raise Denied(_("Say in at most 200 letters why nothing new is made from this image."))
    if reason in {BEING_MADE, BEING_DELETED}:
        raise Denied(_("The portal itself says this of images, and would take it for that; use other words."))
    _set_deprecated(actor, image, timezone.now(), reason)


def restore_image(*, actor: Any, image: Image) -> None:
    """Let machines be made from a deprecated image again. Idempotent. Raises Denied."""
    check_estate(actor, "administer", _("change images"))
    _set_deprecated(actor, image, None, "")


def _check_settled(image: Image, *, restored: bool) -> None:
    """Raise Denied while an operation makes the image, or deletes what shall be `restored`."""
    if image.deprecated_reason == BEING_MADE:
        raise Denied(_("%(image)s is still being made. Wait for that, or cancel it.") % {"image": image})
    if restored and Operation.objects.filter(subject=image.topic, state__in=UNFINISHED).exists():
        raise Denied(_("%(image)s is being deleted.") % {"image": image})


def _set_deprecated(actor: Any, image: Image, at: datetime | None, reason: str) -> None:
    with transaction.atomic():
        current = Image.objects.select_for_update().get(pk=image.pk)
        _check_settled(current, restored=at is None)
        if (current.deprecated_at is None) == (at is None) and current.deprecated_reason == reason:
            return
        before = {"deprecated": current.deprecated_at is not None, "reason": current.deprecated_reason}
        current.deprecated_at, current.deprecated_reason = at, reason
        current.save(update_fields=["deprecated_at", "deprecated_reason"])
        audit.record(
            actor=actor,
            verb="image.deprecated" if at else "image.restored",
            target=current,
            before=before,
            after={"deprecated": at is not None, "reason": reason},
        )


def _device_models(entry: Mapping[str, Any]) -> list[str]:
    """Return the device models that an entry of the manifest names; raises ValueError for an unknown one."""
    named = entry.get("device_models", [DeviceModel.PARAVIRTUAL])
    return [DeviceModel(name).value for name in named]


def set_jump(*, actor: Any, host: Host, jump: str) -> None:
    """Say where people come to by ssh before they jump to machines of `host`. Idempotent. Raises Denied."""
    check_estate(actor, "administer", _("change how hosts are reached"))
    check_jump(jump)
    with transaction.atomic():
        current = locked(host)
        before, current.jump = current.jump, jump
        if before == jump:
            return
        current.save(update_fields=["jump"])
        audit.record(
            actor=actor, verb="host.jump", target=current, before={"jump": before}, after={"jump": jump}
        )


def import_images(*, actor: Any, manifest: Path) -> list[Image]:
    """Make the images that the builder's manifest describes known. Idempotent by content (SHA-256).

    What people said of an image here is not overruled, and holds for its newer versions too.

    `actor` is a user, or a string naming the part of the portal that does it by itself, which needs no role.
    Raises Denied, and ValueError for a manifest that names no file beside it.
    """
    if not isinstance(actor, str):
        check_estate(actor, "administer", _("import images"))
    known = []
    for entry in json.loads(manifest.read_text()):
        source = manifest.parent / Path(entry["file"]).name
        if not source.is_file():
            raise ValueError(f"{source} of the image manifest is missing")
        with transaction.atomic():
            image, created = builders.make_known(
                entry["sha256"],
                {
                    "name": entry["name"],
                    "title": entry["title"],
                    "version": entry["version"],
                    "architecture": entry["architecture"],
                    "format": entry["format"],
                    "size": source.stat().st_size,
                    "virtual_size": entry["virtual_size_bytes"],
                    "login_user": entry["login_user"],
                    "min_memory": entry["min_memory_bytes"],
                    "cloud_init": entry["cloud_init"],
                    "description": entry["description"],
                    "device_models": _device_models(entry),
                    "source": str(source),
                },
            )
            # A newer build lies where the older one lay: that cannot be copied to further hosts.
            Image.objects.filter(source=str(source)).exclude(pk=image.pk).update(source="")
            if created:
                audit.record(
                    actor=actor, verb="image.imported", target=image, after={"sha256": image.sha256}
                )
        known.append(image)
    return known
