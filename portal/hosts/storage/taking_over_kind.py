"""How a pool that somebody else made becomes known. Not for: who may, nor which one (`taking_over`)."""

from django.urls import reverse

from portal.drivers.observations import HostTold
from portal.drivers.types import FOLDER_KINDS, PoolInfo
from portal.hosts.models import PoolAttachment
from portal.hosts.observations import note, now
from portal.hosts.storage.kinds import Look
from portal.hosts.storage.pool_kinds import TAKE_OVER, PoolStep
from portal.operations.models import Operation
from portal.operations.registry import Kind, StepContext, StepFailed


class TakeOver(PoolStep):
    """The pool becomes known as it was seen. On the host nothing is done."""

    name, title = "enter", "Make the pool known"
    takes_over = True

    def do(self, context: StepContext) -> None:
        told = now()
        pools = self.call(context, "list_pools")
        self.check(context, pools)
        context.check()
        self.enter(context)
        note(context.identifiers["host"], HostTold(*told, pools=pools))

    def check(self, context: StepContext, pools: tuple[PoolInfo, ...]) -> None:
        """Raise StepFailed unless the host has the very pool that was seen."""
        names = context.identifiers
        info = next((pool for pool in pools if pool.uuid == names["uuid"]), None)
        if info is None:
            raise StepFailed("pool_vanished")
        path = info.path if info.kind in FOLDER_KINDS else ""
        is_so = (info.name, info.kind, path, info.source, info.server)
        if is_so != tuple(names[name] for name in ("pool", "kind", "path", "source", "server")):
            raise StepFailed("pool_changed", f"it is {is_so}")
        if not info.persistent:
            raise StepFailed("pool_changed", "it is only while it runs")

    def undo(self, context: StepContext) -> None:
        self.forget(context)


class LookIn(Look):
    """What lies in it is shown at once; of a pool that does not run nobody can say."""

    def do(self, context: StepContext) -> None:
        pools = self.call(context, "list_pools")
        if any(pool.uuid == context.identifiers["uuid"] and pool.active for pool in pools):
            super().do(context)

    def place(self, context: StepContext) -> int:
        return PoolAttachment.objects.get(pool__uuid=context.identifiers["uuid"]).pk


def _page(operation: Operation) -> str:
    """Return the page of the pool, of the host while the pool is not known."""
    names = operation.identifiers
    place = PoolAttachment.objects.filter(pool__uuid=names["uuid"], host=names["host"]).first()
    if place is None:
        return reverse("hosts:detail", args=[names["host"]])
    return reverse("hosts:pool", args=[place.pk])


KIND = Kind(TAKE_OVER, "Take over a pool", (TakeOver(), LookIn()), page=_page, waits_for_host=False)
