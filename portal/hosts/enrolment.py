"""The steps that make a host ready: reach it, prove what it can, give it a pool and the images."""

from dataclasses import asdict
from typing import Any

from django.db import IntegrityError, transaction
from django.utils import timezone

from portal.drivers.observations import HostTold
from portal.drivers.types import Accelerator, HostReadiness, PoolSpec, Proof
from portal.hosts.images.spreading import CopiesImages, FillFurtherPools
from portal.hosts.models import Host, Image, ImageAttachment, PoolAttachment, StoragePool
from portal.hosts.observations import note, now
from portal.hosts.steps import HostStep, ring
from portal.operations.registry import Kind, StepContext, StepFailed

#: Seconds a proof may take; an honest KVM host needs less than one.
PROOF_SECONDS = 10.0
#: Seconds until an image must ask to sign in; with KVM it needs about two, on a busy host more.
IMAGE_SECONDS = 60.0
_NOT_BOOTED = "The hypervisor is Xen. No test guest was booted, since no machine is built there."


class Reach(HostStep):
    """The host answers, and is no other one; what it says of itself is kept for the readiness page.

    A host that does not tell its devices is as good as one without any; what it told before stays.
    """

    name, title = "reach", "Reach the host"

    def do(self, context: StepContext) -> str | None:
        began = now()
        readiness: HostReadiness = self.call(context, "readiness")
        # First, so that nothing of a machine is counted that another row stands for.
        _identify(context.identifiers["host"], readiness.uuid)
        told = asdict(readiness) | {"pool_kinds": list(self.call(context, "pool_kinds"))}
        devices = self._devices(context)
        host = Host.objects.filter(pk=context.identifiers["host"])
        before = host.values_list("readiness", flat=True).first() or {}
        told["devices"] = before.get("devices", []) if devices is None else devices
        host.update(readiness=told)
        note(context.identifiers["host"], HostTold(*began, readiness.host))
        return "devices_untold" if devices is None else None

    def _devices(self, context: StepContext) -> list[dict[str, Any]] | None:
        """Return the host's devices, None when it did not tell them. Raises StepFailed when it is away."""
        try:
            return [asdict(one) for one in self.call(context, "host_devices")]
        except StepFailed as failure:
            if failure.away:
                raise
            return None


def _identify(host_id: int, uuid: str) -> None:
    """Keep which machine a host is. Raises StepFailed, with the other's name, when another row is it."""
    try:
        with transaction.atomic():
            Host.objects.filter(pk=host_id).update(host_uuid=uuid or None)
    except IntegrityError as error:
        other = Host.objects.filter(host_uuid=uuid).exclude(pk=host_id).first()
        raise StepFailed("host_enrolled", other.name if other else "another host") from error


class ProveBridge(HostStep):
    """Where no bridge can be made, machines get networks of their own; that is no failure."""

    name, title = "bridge", "See whether it can make networks"

    def do(self, context: StepContext) -> None:
        proof: Proof = self.call(context, "prove_bridge")
        Host.objects.filter(pk=context.identifiers["host"]).update(
            bridges=proof.works, bridge_proof=proof.evidence
        )


class MakePool(HostStep):
    name, title = "pool", "Make the storage pool ready"

    def do(self, context: StepContext) -> None:
        wanted = context.spec["pinned"]["pool"]
        self.call(context, "ensure_pool", PoolSpec(wanted["name"], wanted["uuid"], wanted["path"]))
        host = Host.objects.get(pk=context.identifiers["host"])
        if not host.pools.filter(pool__uuid=wanted["uuid"]).exists():
            # Once: an operator may have said otherwise since. A worker may have died before the host knew it.
            self.call(context, "autostart_pool", wanted["name"], True)
        pool, _ = StoragePool.objects.get_or_create(uuid=wanted["uuid"], defaults={"name": wanted["name"]})
        PoolAttachment.objects.get_or_create(host=host, pool=pool, defaults={"path": wanted["path"]})
        began = now()
        note(host.pk, HostTold(*began, pools=self.call(context, "list_pools")))


class UploadImages(CopiesImages):
    name, title = "images", "Copy the images to the pool"

    def do(self, context: StepContext) -> str | None:
        first = PoolAttachment.objects.select_related("pool").get(
            host=context.identifiers["host"], pool__uuid=context.spec["pinned"]["pool"]["uuid"]
        )
        failed = self.fill(context, first)
        if failed and not first.images.exists():
            raise failed[0]
        return "image_not_everywhere" if failed else None


class Prove(HostStep):
    """KVM counts only when a kernel booted on it: a device file proves nothing.

    First one sector, which tells a host that hangs within seconds; then, with KVM, the smallest image that
    is there, as a machine like any other: some hosts run the sector and hang in a kernel. The emulator needs
    no second proof: it executes by itself what a kernel asks for. So the images come first. Of Xen nothing is
    asked: what runs there others made.
    """

    name, title = "prove", "Boot a test guest to prove the accelerator"
    timeout = IMAGE_SECONDS + 40.0

    def do(self, context: StepContext) -> str | None:
        evidence: list[str] = []
        host = Host.objects.get(pk=context.identifiers["host"])
        if host.is_xen:
            self._keep(host.pk, Accelerator.XEN, _NOT_BOOTED)
            return "xen_builds_none"
        for accelerator in (Accelerator.KVM, Accelerator.EMULATION):
            if self._works(context, accelerator, evidence):
                self._keep(host.pk, accelerator, "\n".join(evidence))
                return None
            context.check()
        raise StepFailed("nothing_boots", "\n".join(evidence))

    @staticmethod
    def _keep(host: int, accelerator: Accelerator, proof: str) -> None:
        told = {"accelerator": accelerator, "proof": proof, "proven_at": timezone.now()}
        Host.objects.filter(pk=host).update(**told)

    def _works(self, context: StepContext, accelerator: Accelerator, evidence: list[str]) -> bool:
        proof: Proof = self.call(context, "prove", accelerator, PROOF_SECONDS)
        evidence.append(f"{accelerator.name}: {proof.evidence}")
        if not proof.works or accelerator is Accelerator.EMULATION:
            return proof.works
        context.check()
        copies = ImageAttachment.objects.filter(
            pool__host=context.identifiers["host"],
            pool__observed_active=True,
            image__deprecated_at=None,
            image__kind=Image.Kind.DISK,
            # What people handed in need not ask to sign in on a serial line, nor boot at all.
            image__uploads=None,
        ).exclude(image__source="")  # a template boots as whoever made it left it
        copy = copies.select_related("image", "pool__pool").order_by("image__min_memory").first()
        if copy is None:
            evidence.append("KVM: no image is there to boot a kernel from. Prove again once one is.")
            return True
        asked = accelerator, copy.pool.pool.name, copy.image.volume_name, IMAGE_SECONDS
        proof = self.call(context, "prove_image", *asked)
        evidence.append(f"KVM with {copy.image}: {proof.evidence}")
        return proof.works


ENROL = Kind(
    name="hosts.enrol",
    title="Enrol a host",
    steps=(Reach(), ProveBridge(), MakePool(), UploadImages(), Prove(), FillFurtherPools()),
    settle=ring,
    # Whoever enrols a host that does not answer wants to know it now.
    waits_for_host=False,
    cancellable=True,
)
