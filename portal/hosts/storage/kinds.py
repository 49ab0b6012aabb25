"""What is done to volumes on a host. Not for: who may, and what may be asked for, which `services` says."""

from typing import Any

from django.urls import reverse
from django.utils import timezone

from portal.drivers.observations import HostTold
from portal.drivers.types import CloneMode, VolumeSpec
from portal.hosts.observations import note, now
from portal.hosts.steps import HostStep, copy_volume
from portal.hosts.storage.looking import note_made, note_volumes
from portal.operations.models import Operation
from portal.operations.registry import Kind, StepContext, StepFailed

REFRESH, CREATE, GROW = "storage.refresh", "storage.create", "storage.grow"
CLONE, DELETE = "storage.clone", "storage.delete"


class Look(HostStep):
    """See what lies in the pool and how full it is."""

    name, title = "look", "Look into the pool"
    timeout = 120.0

    def do(self, context: StepContext) -> None:
        names = context.identifiers
        began, told = timezone.now(), now()
        self.call(context, "refresh_pool", names["pool"])
        note_volumes(names["attachment"], self.call(context, "list_volumes", names["pool"]), began)
        note(names["host"], HostTold(*told, pools=self.call(context, "list_pools")))


class Free(HostStep):
    """Nobody has a volume of the name: what is there is never taken for the new one, nor written over."""

    name, title = "free", "See that the name is free"

    def do(self, context: StepContext) -> None:
        names = context.identifiers
        there = self.call(context, "list_volumes", names["pool"])
        if names["name"] in {info.name for info in there}:
            raise StepFailed("already_exists", f"a volume {names['name']} is there")


class Make(HostStep):
    name, title = "make", "Make the volume"
    timeout = 3600.0

    def do(self, context: StepContext) -> None:
        names = context.identifiers
        spec = VolumeSpec(
            names["pool"],
            names["name"],
            names["capacity"],
            backing_path=names.get("source") or None,
            backing_format=names["format"],
            clone=CloneMode.FULL,
            format=names["format"],
        )
        if spec.backing_path is None:
            self.call(context, "create_volume", spec)
        else:
            copy_volume(self, context, spec)
        note_made(names["attachment"], names["name"])

    def undo(self, context: StepContext) -> None:
        self.call(context, "delete_volume", context.identifiers["pool"], context.identifiers["name"])


class Unused(HostStep):
    """The host itself says who has the volume: what the portal saw last may be old."""

    name, title = "unused", "Ask the host who uses it"
    #: Which identifier names the volume.
    of = "name"

    def do(self, context: StepContext) -> None:
        names = context.identifiers
        volumes = {info.name: info for info in self.call(context, "list_volumes", names["pool"])}
        there = volumes.get(names[self.of])
        if there is None:
            return
        users = list(self.call(context, "volume_users", names["pool"], there.name))
        if self.of == "name":
            users += [info.name for info in volumes.values() if info.backing_path == there.path]
        if users:
            raise StepFailed("volume_in_use", ", ".join(users))


class SourceUnused(Unused):
    """What is written while it is copied makes no copy."""

    of = "source_name"


class Grow(HostStep):
    name, title = "grow", "Make the volume larger"

    def do(self, context: StepContext) -> None:
        names = context.identifiers
        self.call(context, "resize_volume", names["pool"], names["name"], names["capacity"])


class Delete(HostStep):
    name, title = "delete", "Delete the volume"
    timeout = 300.0

    def do(self, context: StepContext) -> None:
        self.call(context, "delete_volume", context.identifiers["pool"], context.identifiers["name"])


def _page(operation: Operation) -> str:
    return reverse("hosts:pool", args=[operation.identifiers["attachment"]])


def _kind(name: str, title: str, *steps: HostStep, **more: Any) -> Kind:
    return Kind(name, title, (*steps, Look()), page=_page, waits_for_host=False, **more)


KINDS = (
    _kind(REFRESH, "Look into a pool"),
    _kind(CREATE, "Make a volume", Free(), Make()),
    _kind(CLONE, "Copy a volume", Free(), SourceUnused(), Make(), cancellable=True),
    _kind(GROW, "Make a volume larger", Unused(), Grow()),
    _kind(DELETE, "Delete a volume", Unused(), Delete()),
)
