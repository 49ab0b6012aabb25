"""Describe an image anew, and say before what follows for items and requests. Not for: the image's row."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from django.db import transaction
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from portal.core.canonical import canonical_json, digest
from portal.core.errors import Denied
from portal.core.stale import Snapshot, check_seen
from portal.core.templatetags.gatehouse import gib
from portal.hosts.images import describing
from portal.hosts.images.values import Description
from portal.hosts.models import Image
from portal.hosts.services import check_estate
from portal.operations.models import Operation
from portal.operations.states import UNFINISHED, State
from vms import fitting
from vms.catalogue.images import listed
from vms.changes.resizing import KIND as RESIZE
from vms.models import CatalogueItem, Definition, VirtualMachine
from vms.services import BUILDS, DEPLOY, share_of
from vms.virtualization import Devices


class Follows(Denied):
    """What would follow was not agreed to yet; `effects` are sentences, `token` tells them from others."""

    def __init__(self, effects: Sequence[str]) -> None:
        super().__init__(_("Nothing was saved yet: look at what follows, and save again if you mean it."))
        self.effects, self.token = effects, token_of(effects)


def token_of(effects: Sequence[str]) -> str:
    """Return what tells effects from others."""
    return digest(canonical_json(list(effects)))


def describe(
    *,
    actor: Any,
    image: Image,
    values: Description,
    seen: Snapshot,
    given_back: Collection[str] = (),
    agreed: str = "",
) -> None:
    """Say what an image is from now on. Arguments and errors are those of `describing.describe_image`.

    Items and requests that are impossible then stay, and are refused with the reason: raises Follows until
    the actor `agreed`, by its token, to what it told.
    """
    check_estate(actor, "administer", _("change images"))
    with transaction.atomic():
        current = describing.locked(image)
        check_seen(current.title, seen, describing.snapshot(current))
        then = describing.as_listed(current, values, given_back)
        found = effects(current, then)
        if found and agreed != token_of(found):
            # What is wrong in itself is told first; nothing of it is kept.
            describing.check(current, then)
            raise Follows(found)
        describing.describe_image(
            actor=actor, image=current, values=values, seen=seen, given_back=given_back
        )


def effects(image: Image, values: Description) -> list[str]:
    """Return in sentences what would become impossible, and what is short of memory; few queries an item."""
    after = describing.as_described(image, values)
    items = image.items.order_by("name").prefetch_related("flavours", "projects")
    found = [sentence for item in items for sentence in _of_item(item, image, after, values)]
    return [*found, *_waiting(image, after, values), *_short(image, after)]


def _of_item(item: CatalogueItem, before: Image, after: Image, values: Description) -> Iterator[str]:
    name = item.name
    given = [size for size in item.flavours.all() if fitting.fits(item, size, before)]
    lost = [size for size in given if not fitting.fits(item, size, after)]
    if lost and len(lost) == len(given):
        yield _("%(item)s cannot be asked for: none of its sizes is large enough.") % {"item": name}
    elif lost:
        told = {"item": name, "sizes": listed([size.name for size in lost])}
        yield _("%(item)s cannot be asked for in the sizes that are too small: %(sizes)s.") % told
    if item.disk_most is not None and before.least_disk <= item.disk_most < after.least_disk:
        told = {"item": name, "most": gib(item.disk_most, 2)}
        yield _("The largest disk of %(item)s, %(most)s, is too small to be chosen.") % told
    offered = [kind for kind in item.device_models if kind in before.device_models]
    if gone := [kind for kind in offered if kind not in after.device_models]:
        labels = listed([str(Devices(kind).label) for kind in gone])
        if len(gone) == len(offered):
            yield _("%(item)s cannot be asked for: it comes with %(devices)s alone.") % {
                "item": name,
                "devices": labels,
            }
        else:
            yield _("%(item)s does not come with %(devices)s any more.") % {"item": name, "devices": labels}
    yield from _projects(item, before, values)


def _projects(item: CatalogueItem, before: Image, values: Description) -> Iterator[str]:
    if values.every_project:
        return
    if item.every_project:
        if before.every_project:
            yield _("%(item)s is offered to every project, and the others cannot ask for it.") % {
                "item": item.name
            }
        return
    lost = [
        project.name
        for project in item.projects.all()
        if project.pk not in values.projects and fitting.shared_with(before, project)
    ]
    if lost:
        told = {"item": item.name, "projects": listed(sorted(lost))}
        yield _("The people of %(projects)s cannot ask for %(item)s.") % told


def _waiting(before: Image, after: Image, values: Description) -> Iterator[str]:
    """Yield which requests that wait can be approved now and not any more then."""
    pinned = f'"sha256":{canonical_json(before.sha256)}'
    asked = Operation.objects.filter(
        state=State.AWAITING_APPROVAL, kind__in=[*BUILDS, DEPLOY], spec__contains=pinned
    )
    lost = []
    for operation in asked.select_related("project").order_by("pk"):
        spec = operation.frozen
        if spec["pinned"]["image"]["sha256"] != before.sha256:
            continue
        spec = {**spec, "sizes": share_of(spec["sizes"])}
        project = operation.project
        if fitting.refusal(spec, before, project):
            continue
        if fitting.refusal(spec, after, project, projects=values.projects):
            lost.append(str(spec["pinned"]["name"]))
    lost += [
        operation.title
        for operation, machine in _resizes(before, [State.AWAITING_APPROVAL])
        if _comes_short(operation.frozen, machine, before, after)
    ]
    if lost:
        words = ngettext(
            "A request that waits can only be approved after it was changed: %(names)s.",
            "%(count)d requests that wait can only be approved after they were changed: %(names)s.",
            len(lost),
        )
        yield words % {"count": len(lost), "names": listed(lost)}


def _resizes(image: Image, states: Collection[str]) -> list[tuple[Operation, VirtualMachine]]:
    """Return the changes of size of the image's machines that are in `states`, each with its machine."""
    asked = list(Operation.objects.filter(kind=RESIZE, state__in=states).order_by("pk"))
    uuids = {operation.frozen["pinned"]["machine"] for operation in asked}
    found = {str(one.uuid): one for one in VirtualMachine.objects.filter(image=image, uuid__in=uuids)}
    named = [(operation, found.get(operation.frozen["pinned"]["machine"])) for operation in asked]
    return [(operation, machine) for operation, machine in named if machine is not None]


def _comes_short(spec: Mapping[str, Any], machine: VirtualMachine, before: Image, after: Image) -> bool:
    """Tell whether what a request leaves a machine's guest was enough for its image, and is not then."""
    refusals = [fitting.resize_refusal(spec, machine, image) for image in (before, after)]
    return not refusals[0] and bool(refusals[1])


def _short(before: Image, after: Image) -> Iterator[str]:
    """Yield which machines come to less than the image needs then, by what nobody decides on any more."""
    under_way = [
        machine.name
        for operation, machine in _resizes(before, UNFINISHED)
        if _comes_short(operation.frozen, machine, before, after)
    ]
    if under_way:
        words = ngettext(
            "A change that is under way leaves less memory than that to %(names)s.",
            "%(count)d changes that are under way leave less memory than that to %(names)s.",
            len(under_way),
        )
        yield words % {"count": len(under_way), "names": listed(under_way)}
    if at_start := list(_at_next_start(before, after)):
        words = ngettext(
            "A machine has less memory than that from its next start on: %(names)s.",
            "%(count)d machines have less memory than that from their next start on: %(names)s.",
            len(at_start),
        )
        yield words % {"count": len(at_start), "names": listed(at_start)}


def _at_next_start(before: Image, after: Image) -> Iterator[str]:
    """Yield the names of machines that run with enough memory, and wait to have less at their next start."""
    if after.min_memory <= before.min_memory:
        return
    own = {(one.host_id, one.uuid): one.name for one in before.machines.order_by("name")}
    for seen in Definition.objects.filter(uuid__in=before.machines.values("uuid")):
        sides = (seen.observed_persistent or {}, seen.observed_running or {})
        then, now = (side.get("current_memory_bytes", side.get("memory_bytes", 0)) for side in sides)
        if (seen.host_id, seen.uuid) in own and before.min_memory <= then < after.min_memory <= now:
            yield own[seen.host_id, seen.uuid]
