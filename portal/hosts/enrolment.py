"""The steps that make a host ready: reach it, prove what it can, give it a pool and the images."""

from dataclasses import asdict

from django.utils import timezone

from portal.drivers.observations import HostTold
from portal.drivers.types import Accelerator, HostReadiness, PoolSpec, Proof, VolumeInfo
from portal.hosts.models import Host, Image, ImageAttachment, PoolAttachment, StoragePool
from portal.hosts.observations import note, now
from portal.hosts.steps import HostStep, ring
from portal.operations.registry import Kind, StepContext, StepFailed

#: Seconds a proof may take; an honest KVM host needs less than one.
PROOF_SECONDS = 10.0


class Reach(HostStep):
    """The host answers; what it says of itself is kept for the readiness page."""

    name, title = "reach", "Reach the host"

    def do(self, context: StepContext) -> None:
        began = now()
        readiness: HostReadiness = self.call(context, "readiness")
        Host.objects.filter(pk=context.identifiers["host"]).update(readiness=asdict(readiness))
        note(context.identifiers["host"], HostTold(*began, readiness.host))


class Prove(HostStep):
    """KVM counts only when a guest booted on it: a device file proves nothing."""

    name, title = "prove", "Boot a test guest to prove the accelerator"
    timeout = 60.0

    def do(self, context: StepContext) -> None:
        evidence = []
        for accelerator in (Accelerator.KVM, Accelerator.EMULATION):
            proof: Proof = self.call(context, "prove", accelerator, PROOF_SECONDS)
            evidence.append(f"{accelerator.name}: {proof.evidence}")
            if proof.works:
                Host.objects.filter(pk=context.identifiers["host"]).update(
                    accelerator=accelerator, proof="\n".join(evidence), proven_at=timezone.now()
                )
                return
            context.check()
        raise StepFailed("nothing_boots", "\n".join(evidence))


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
        pool, _ = StoragePool.objects.get_or_create(uuid=wanted["uuid"], defaults={"name": wanted["name"]})
        PoolAttachment.objects.get_or_create(host=host, pool=pool, defaults={"path": wanted["path"]})
        began = now()
        note(host.pk, HostTold(*began, pools=self.call(context, "list_pools")))


class UploadImages(HostStep):
    name, title = "images", "Copy the images to the pool"
    timeout = 1800.0

    def do(self, context: StepContext) -> None:
        attachment = PoolAttachment.objects.get(
            host=context.identifiers["host"], pool__uuid=context.spec["pinned"]["pool"]["uuid"]
        )
        # What a newer build replaced cannot be copied any more, and what is deprecated need not be.
        for image in Image.objects.exclude(source="").filter(deprecated_at=None):
            volume: VolumeInfo = self.call(
                context, "upload_image", attachment.pool.name, image.volume_name, image.source
            )
            ImageAttachment.objects.update_or_create(
                image=image, pool=attachment, defaults={"path": volume.path}
            )
            context.check()


ENROL = Kind(
    name="hosts.enrol",
    title="Enrol a host",
    steps=(Reach(), Prove(), ProveBridge(), MakePool(), UploadImages()),
    settle=ring,
    # Whoever enrols a host that does not answer wants to know it now.
    waits_for_host=False,
    cancellable=True,
)
