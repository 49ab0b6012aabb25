"""How hosts get further pools and lose them; how pools start and stop. Not for: who may, nor enrolment.

A pool's UUID is drawn when it is asked for, so that no step takes a pool of somebody else for it.
"""

from collections.abc import Callable

from django.db import transaction
from django.db.models import ProtectedError
from django.urls import reverse

from portal.drivers.observations import HostTold
from portal.drivers.types import PoolInfo, PoolKind, PoolSpec
from portal.hosts.images.spreading import FillFurtherPools
from portal.hosts.models import ImageAttachment, PoolAttachment, StoragePool, Upload
from portal.hosts.observations import note, now
from portal.hosts.steps import HostStep
from portal.hosts.storage.kinds import Look, StorageStep, page
from portal.operations import ledger
from portal.operations.models import Counter, Operation
from portal.operations.registry import Kind, StepContext, StepFailed

ADD, REMOVE = "storage.add_pool", "storage.remove_pool"
TAKE_OVER = "storage.take_over_pool"
START, STOP, AUTOSTART = "storage.start_pool", "storage.stop_pool", "storage.autostart_pool"


#: Where a host has the devices of a pool that is no folder, by what it lies on, and no other pool's.
_DEVICES = {PoolKind.LOGICAL: "/dev/%(source)s", PoolKind.ZFS: "/dev/zvol/%(source)s"}


class PoolStep(StorageStep):
    """A step on the pool that the operation names."""

    timeout = 120.0
    #: Whether the pool that it makes known is somebody else's.
    takes_over = False

    def told(self, context: StepContext) -> PoolInfo | None:
        """Return what the host says of this very pool. Raises StepFailed for another one of its name."""
        names = context.identifiers
        pool = next((one for one in self.call(context, "list_pools") if one.name == names["pool"]), None)
        if pool is not None and pool.uuid != names["uuid"]:
            raise StepFailed("name_taken", f"the pool {pool.name} is another one")
        return pool

    def stands(self, context: StepContext) -> bool:
        """Tell whether the host has this very pool. Raises StepFailed for another one of its name."""
        return self.told(context) is not None

    def needed(self, context: StepContext) -> PoolInfo:
        """Return what the host says of this very pool. Raises StepFailed when it has no such pool."""
        pool = self.told(context)
        if pool is None:
            raise StepFailed("volume_pool_gone")
        return pool

    def check_unused(self, context: StepContext) -> None:
        """Ask the host who uses what is in the pool. Raises StepFailed with the domains."""
        if users := self.call(context, "pool_users", context.identifiers["pool"]):
            raise StepFailed("pool_in_use", ", ".join(users))

    def drop(self, context: StepContext) -> None:
        """Take the pool from the host, and nothing that lies in it. Another one of its name stays."""
        try:
            there = self.stands(context)
        except StepFailed as failure:
            if failure.code != "name_taken":
                raise
            return
        if there:
            self.call(context, "remove_pool", context.identifiers["pool"])

    def enter(self, context: StepContext) -> PoolAttachment:
        """Make the pool known. Idempotent."""
        names = context.identifiers
        with transaction.atomic():
            pool, _made = StoragePool.objects.get_or_create(
                uuid=names["uuid"], defaults={"name": names["pool"]}
            )
            told = {"path": names["path"], "observed_kind": names.get("kind", PoolKind.DIR)}
            told["taken_over"] = self.takes_over
            place, _made = PoolAttachment.objects.get_or_create(
                host_id=names["host"], pool=pool, defaults=told
            )
        return place

    def forget(self, context: StepContext) -> None:
        """Forget the pool, unless something of the portal's is in it. Idempotent. Raises StepFailed."""
        forget(context.identifiers["uuid"])


def forget(uuid: str) -> None:
    """Forget a pool, unless something of the portal's is in it. Idempotent. Raises StepFailed."""
    try:
        with transaction.atomic():
            pool = StoragePool.objects.filter(uuid=uuid).first()
            if pool is None:
                return
            # Whoever places a disk takes capacity first: behind this lock nobody comes into the pool.
            scope = pool.scope
            ledger.lock([scope])
            uploads = Upload.objects.filter(pool__pool=pool)
            coming = uploads.exclude(state=Upload.State.DONE).first()
            if coming is not None:
                raise StepFailed("pool_in_use", f"the upload {coming}")
            uploads.delete()
            ImageAttachment.objects.filter(pool__pool=pool).delete()
            pool.attachments.all().delete()
            pool.delete()
            ledger.forget([scope])
    except ProtectedError as error:
        raise StepFailed("pool_in_use", "a machine") from error


class Define(PoolStep):
    name, title = "define", "Make the pool on the host"

    def do(self, context: StepContext) -> None:
        names = context.identifiers
        kind = PoolKind(names["kind"])
        if kind not in self.call(context, "pool_kinds"):
            raise StepFailed("not_supported", f"the host has no pools of kind {kind}")
        folder = names["path"] or _DEVICES.get(kind, "") % {"source": names["source"]}
        if folder and not self.stands(context):
            self._refuse_taken(context, folder)
        told = [names.get(name, "") for name in ("source", "server", "user", "secret")]
        spec = PoolSpec(names["pool"], names["uuid"], names["path"], kind, *told)
        self.call(context, "ensure_pool", spec)
        # Of its own: a worker that died may have left one that was defined and no more.
        self.call(context, "autostart_pool", spec.name, True)

    def _refuse_taken(self, context: StepContext, folder: str) -> None:
        """Raise StepFailed when the host has a pool in the folder, by other links too."""
        there = {pool.path for pool in self.call(context, "list_pools") if pool.path}
        # With a name behind it, so that the folder's own link is looked at.
        inside = {path: f"{path}/." for path in {folder, *there}}
        real = self.call(context, "canonical", tuple(sorted(inside.values())))
        if any(real[inside[path]] == real[inside[folder]] for path in there):
            raise StepFailed("folder_taken", folder)

    def undo(self, context: StepContext) -> None:
        self.drop(context)


class Enter(PoolStep):
    name, title = "enter", "Make the pool known"

    def do(self, context: StepContext) -> None:
        told = now()
        pools = self.call(context, "list_pools")
        self.enter(context)
        note(context.identifiers["host"], HostTold(*told, pools=pools))

    def undo(self, context: StepContext) -> None:
        self.forget(context)


class FillThis(FillFurtherPools):
    """So that machines can be placed in it; it is there also without them."""

    name, title = "images", "Copy the images to it"

    def places(self, context: StepContext) -> list[PoolAttachment]:
        found = PoolAttachment.objects.filter(pool__uuid=context.identifiers["uuid"]).select_related("pool")
        return [place for place in found if place.has_folder]


class Empty(PoolStep):
    """The host itself says who has volumes of it: what the portal saw last may be old."""

    name, title = "unused", "Ask the host who uses what is in it"

    def do(self, context: StepContext) -> None:
        if self.stands(context):
            self.check_unused(context)


class Forget(PoolStep):
    """First here, so that nothing is placed into it while it goes."""

    name, title = "forget", "Forget the pool"

    def do(self, context: StepContext) -> None:
        self.forget(context)

    def undo(self, context: StepContext) -> None:
        self.enter(context)


class Drop(PoolStep):
    name, title = "drop", "Take the pool from the host"

    def do(self, context: StepContext) -> None:
        self.drop(context)


class Start(PoolStep):
    name, title = "start", "Start the pool"

    def do(self, context: StepContext) -> None:
        self.needed(context)
        self.call(context, "start_pool", context.identifiers["pool"])


class Stop(PoolStep):
    """The host itself says who uses it, in the very step: a worker may have died since another one asked."""

    name, title = "stop", "Stop the pool, unless somebody uses it"

    def do(self, context: StepContext) -> None:
        if not self.needed(context).active:
            return
        self.check_unused(context)
        place = PoolAttachment.objects.select_related("pool").get(pk=context.identifiers["attachment"])
        if any(counter.taken for counter in Counter.objects.filter(scope=place.pool.scope)):
            raise StepFailed("pool_in_use", "a machine")
        self.call(context, "stop_pool", context.identifiers["pool"])


class Autostart(PoolStep):
    name, title = "autostart", "Tell the host whether it starts the pool"

    def do(self, context: StepContext) -> None:
        self.needed(context)
        self.call(context, "autostart_pool", context.identifiers["pool"], context.identifiers["on"])


class See(PoolStep):
    name, title = "see", "See whether the pool runs"

    def do(self, context: StepContext) -> str | None:
        began = now()
        note(context.identifiers["host"], HostTold(*began, pools=self.call(context, "list_pools")))
        return None


class SeeStopped(See):
    """Stop it again where it runs: libvirt, when it is started, runs each pool whose folder it finds."""

    def do(self, context: StepContext) -> str | None:
        super().do(context)
        if not self._runs(context):
            return None
        Stop().do(context)
        super().do(context)
        return "pool_runs_again" if self._runs(context) else None

    def _runs(self, context: StepContext) -> bool:
        place = PoolAttachment.objects.filter(pk=context.identifiers["attachment"])
        return place.filter(observed_active=True).exists()


def _pools_page(operation: Operation) -> str:
    return reverse("hosts:pools")


def _kind(name: str, title: str, *steps: HostStep, page: Callable[[Operation], str] = _pools_page) -> Kind:
    return Kind(name, title, steps, page=page, waits_for_host=False)


KINDS = (
    _kind(ADD, "Add a pool", Define(), Enter(), FillThis()),
    _kind(REMOVE, "Remove a pool", Empty(), Forget(), Drop()),
)
RUNNING = (
    _kind(START, "Start a pool", Start(), Look(), page=page),
    _kind(STOP, "Stop a pool", Stop(), SeeStopped(), page=page),
    _kind(AUTOSTART, "Start a pool with its host or not", Autostart(), See(), page=page),
)
