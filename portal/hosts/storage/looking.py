"""Write what lies in a pool. Not for: asking the host."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from django.db import transaction

from portal.drivers.types import VolumeInfo
from portal.hosts.models import BegunVolume, MadeBefore, PoolAttachment, Volume


def note_volumes(attachment_id: int, found: Sequence[VolumeInfo], began: datetime) -> None:
    """Write what a host told of a pool, unless something newer is written. Idempotent."""
    with transaction.atomic():
        attachment = PoolAttachment.objects.select_for_update().filter(pk=attachment_id).first()
        if attachment is None or (attachment.observed_volumes_at or began) > began:
            return
        before = _made_before(attachment)
        names = [info.name for info in found]
        known = {volume.name: volume for volume in attachment.volumes.all()}
        attachment.volumes.filter(name__in=set(known) - set(names)).delete()
        for info in found:
            told = {
                "observed_path": info.path,
                "observed_capacity": info.capacity_bytes,
                "observed_allocation": info.allocation_bytes,
                "observed_format": info.format[:16],
                "observed_backing": info.backing_path or "",
            }
            made = before.get(info.name) == _told(info.capacity_bytes, info.format[:16])
            volume = known.get(info.name, Volume(pool=attachment, name=info.name, made=made))
            if volume.pk and all(getattr(volume, field) == value for field, value in told.items()):
                continue
            for field, value in told.items():
                setattr(volume, field, value)
            volume.save()
        attachment.observed_volumes_at = began
        attachment.save(update_fields=["observed_volumes_at"])


def keep_made(attachment: PoolAttachment) -> None:
    """Keep what people made in a pool that is given back. Joins the caller's transaction."""
    if attachment.observed_volumes_at is None:
        # What is kept of an earlier time was not asked for yet.
        return
    made = attachment.volumes.filter(made=True)
    told = {volume.name: _told(volume.observed_capacity, volume.observed_format) for volume in made}
    MadeBefore.objects.update_or_create(uuid=attachment.pool.uuid, defaults={"volumes": told})


def _told(capacity: int, form: str) -> list[Any]:
    """Return what tells a volume from another one of its name, as far as a list of a pool tells."""
    return [capacity, form]


def _made_before(attachment: PoolAttachment) -> Mapping[str, list[Any]]:
    """Return, at the first look into a pool that was taken over, what people made in it before; forget it."""
    if attachment.observed_volumes_at is not None or not attachment.taken_over:
        return {}
    kept = MadeBefore.objects.filter(uuid=attachment.pool.uuid)
    volumes: Mapping[str, list[Any]] = kept.values_list("volumes", flat=True).first() or {}
    kept.delete()
    return volumes


def note_made(attachment_id: int, name: str) -> None:
    """Write that people made a volume that was seen here. Idempotent."""
    Volume.objects.filter(pool_id=attachment_id, name=name).update(made=True)


def note_begun(mark: str) -> None:
    """Write that what has the name of this operation's volume is its own from now on. Idempotent."""
    BegunVolume.objects.get_or_create(mark=mark)


def is_begun(mark: str) -> bool:
    """Tell whether what has the name of this operation's volume is its own."""
    return BegunVolume.objects.filter(mark=mark).exists()


def forget_begun(mark: str) -> None:
    """Write that it is not, or that the operation is over. Idempotent."""
    BegunVolume.objects.filter(mark=mark).delete()
