"""Whether sizes and frozen requests go with an image as it is described now. Not for: what is asked anew."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from django.utils.translation import gettext as _

from portal.accounts.models import Project
from portal.core.templatetags.gatehouse import gib
from portal.hosts.models import Image
from vms import profiles, virtualization
from vms.models import CatalogueItem, VirtualMachine
from vms.specs import first_disk, guest_memory
from vms.virtualization import Devices

MIB = 1 << 20
#: Disks that a new machine can have: a SATA controller has six ports, one of which is its seed's.
MOST_SATA, MOST_VIRTIO = 5, 26


def misfits(size: Any, image: Image) -> Iterator[str]:
    """Yield why a machine of `size` (its `name`, `memory` and `disk`) cannot be made from `image`."""
    told = {"size": size.name, "image": image.title}
    if size.disk < image.least_disk:
        yield _("The disk of %(size)s (%(disk)s) is smaller than %(image)s (%(least)s).") % {
            **told,
            "disk": gib(size.disk, 2),
            "least": gib(image.least_disk, 2),
        }
    if size.memory < image.min_memory:
        yield _("%(image)s needs %(least)s of memory; %(size)s has %(memory)s.") % {
            **told,
            "memory": gib(size.memory, 2),
            "least": gib(image.min_memory, 2),
        }


def fits(item: CatalogueItem, size: Any, image: Image) -> bool:
    """Tell whether a machine of `item` in `size` can be made from `image`."""
    if item.disk_most is not None and item.disk_most >= image.least_disk:
        # The disk can be chosen: a size need not have it.
        return bool(size.memory >= image.min_memory)
    return not any(misfits(size, image))


def too_many(image: Image, devices: str) -> str:
    """Return why a machine cannot have all disks of an image with such devices, '' when it can."""
    count, most = 1 + len(image.further), MOST_SATA if devices == Devices.EMULATED else MOST_VIRTIO
    if count <= most:
        return ""
    words = _("%(image)s has %(count)d disks, and a machine with these devices at most %(most)d.")
    return words % {"image": image.title, "count": count, "most": most}


def shared_with(image: Image, project: Project | None) -> bool:
    """Tell whether people of `project` may use `image`."""
    if image.every_project:
        return True
    return project is not None and any(one.pk == project.pk for one in image.projects.all())


def refusal(
    spec: Mapping[str, Any],
    image: Image,
    project: Project | None,
    projects: Collection[int] | None = None,
) -> str:
    """Return why the request for one machine, as it was frozen, goes with its image no more; '' if it does.

    `projects` are those that may use it, as keys, where they are to be others than the image has.
    """
    allowed = shared_with(image, project)
    if projects is not None and not image.every_project:
        allowed = project is not None and project.pk in projects
    if not allowed:
        told = {"image": image.label, "project": project}
        return _("The people of %(project)s may not use the image %(image)s.") % told
    return _anew(image, _lack(spec, image))


def _anew(image: Image, reason: str) -> str:
    if not reason:
        return ""
    words = _(
        "%(image)s was described anew since this was asked. %(reason)s Change the request, or ask anew."
    )
    return words % {"image": image.label, "reason": reason}


def resize_refusal(spec: Mapping[str, Any], machine: VirtualMachine, image: Image | None) -> str:
    """Return why the frozen request for another size of `machine` goes with its image no more; '' if it does.

    `image` is the machine's, or what that would be.
    """
    return _anew(image, too_little(machine, guest_memory(spec), image)) if image is not None else ""


def too_little(machine: VirtualMachine, memory: int, image: Image | None) -> str:
    """Return why the guest of `machine`, of that image, is not left `memory` bytes; '' when it can be.

    One that has no more already keeps that.
    """
    least = max(image.min_memory if image else 0, MIB)
    if memory >= min(least, machine.memory_now):
        return ""
    return _("%(machine)s needs at least %(least)s.") % {"machine": machine.name, "least": gib(least, 3)}


def _lack(spec: Mapping[str, Any], image: Image) -> str:
    memory, disk = guest_memory(spec), first_disk(spec)
    _wanted, devices = virtualization.pinned(dict(spec))
    known, asked = profiles.profiles_of(image), profiles.pinned(spec)
    if memory < image.min_memory:
        told = {"least": gib(image.min_memory, 2), "has": gib(memory, 2)}
        return _("It needs %(least)s of memory, and this asks for %(has)s.") % told
    if disk < image.least_disk:
        told = {"least": gib(image.least_disk, 2), "has": gib(disk, 2)}
        return _("It needs a disk of %(least)s, and this asks for %(has)s.") % told
    if reason := too_many(image, devices):
        return reason
    if devices not in image.device_models:
        label = Devices(devices).label if devices in Devices.values else devices
        return _("It has no drivers for %(devices)s.") % {"devices": label}
    if asked not in known:
        boards = {"board": known[0].label, "asked": profiles.Profile(asked).label}
        return _("It starts on the board %(board)s, and this asks for %(asked)s.") % boards
    return ""
