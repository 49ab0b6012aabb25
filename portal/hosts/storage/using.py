"""Who uses a volume, as the portal knows. Not for: asking the host, which the steps do before they delete."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from django.utils.translation import gettext as _

from portal.drivers.types import names_of
from portal.hosts.images.values import BEING_MADE
from portal.hosts.models import Image, ImageAttachment, Volume


@dataclass(frozen=True)
class Use:
    """Somebody or something that uses a volume, in words; the address of its page, '' for none."""

    words: str
    url: str = ""


#: What a room knows of who uses volumes, by the volume's key. Volumes come with pool and host.
Users = Callable[[Sequence[Volume]], Iterable[tuple[int, Use]]]
_rooms: list[Users] = []


def register(users: Users) -> None:
    """Let a room say who of its own uses volumes."""
    _rooms.append(users)


def uses_of(volumes: Sequence[Volume]) -> Mapping[int, list[Use]]:
    """Return who uses each of `volumes`, by its key, in a constant number of queries."""
    return _gathered(volumes, (_images, _standing_on, *_rooms))


def uses_by_machines(volumes: Sequence[Volume]) -> Mapping[int, list[Use]]:
    """Return like `uses_of` who uses `volumes`, but no images and no volumes that stand on others."""
    return _gathered(volumes, _rooms)


def _gathered(volumes: Sequence[Volume], rooms: Iterable[Users]) -> Mapping[int, list[Use]]:
    found: dict[int, list[Use]] = {volume.pk: [] for volume in volumes}
    for users in rooms:
        for pk, use in users(volumes):
            if use not in found[pk]:
                found[pk].append(use)
    return found


def is_orphan(volume: Volume, uses: Sequence[Use]) -> bool:
    """Tell whether nobody made a volume here and nobody uses it. Nothing is ever deleted for that."""
    return not volume.made and not uses


def _images(volumes: Sequence[Volume]) -> Iterable[tuple[int, Use]]:
    copies = ImageAttachment.objects.filter(pool__pool__in={volume.pool.pool_id for volume in volumes})
    titles = {
        (copy.pool.pool_id, path): copy.image
        for copy in copies.select_related("image", "pool")
        for path in copy.paths
    }
    # A copy that is under way has no row yet.
    hidden = Image.objects.filter(deprecated_reason=BEING_MADE)
    made = {name: image for image in hidden for name in image.volume_names}
    for volume in volumes:
        if image := titles.get((volume.pool.pool_id, volume.observed_path)):
            yield volume.pk, Use(_("Image %(image)s") % {"image": image.label})
        elif image := made.get(volume.name):
            yield volume.pk, Use(_("Image %(image)s, which is being made") % {"image": image.label})


def _standing_on(volumes: Sequence[Volume]) -> Iterable[tuple[int, Use]]:
    hosts = {volume.pool.host_id for volume in volumes}
    linked = Volume.objects.filter(pool__host__in=hosts).exclude(observed_backing="")
    by_path: dict[tuple[int, str], list[str]] = {}
    for host, backing, name in linked.values_list("pool__host", "observed_backing", "name"):
        by_path.setdefault((host, backing), []).append(name)
    for volume in volumes:
        for path in names_of(volume.observed_path):
            for name in by_path.get((volume.pool.host_id, path), ()):
                yield volume.pk, Use(_("Volume %(volume)s, which stands on it") % {"volume": name})
