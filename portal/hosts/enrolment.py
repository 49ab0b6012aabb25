"""The steps that make a host ready: reach it, prove what it can, give it a pool and the images."""

from dataclasses import asdict

from django.utils import timezone

from portal.drivers.types import (
    Accelerator,
    HostInfo,
    HostReadiness,
    PoolInfo,
    PoolSpec,
    Proof,
    VolumeInfo,
)
from portal.hosts.models import Health, Host, Image, ImageAttachment, PoolAttachment, StoragePool
from portal.hosts.steps import HostStep
from portal.operations.models import Counter
from portal.operations.registry import Kind, StepContext, StepFailed

#: Seconds a proof may take; an honest KVM host needs less than one.
PROOF_SECONDS = 10.0


class Reach(HostStep):
    """The host answers; what it says of itself is kept for the readiness page."""

    name, title = "reach", "Reach the host"

    def do(self, context: StepContext) -> None:
        readiness: HostReadiness = self.call(context, "readiness")
        info: HostInfo = readiness.host
        Host.objects.filter(pk=context.identifiers["host"]).update(
            readiness=asdict(readiness),
            observed_cpus=info.cpus,
            observed_memory=info.memory_bytes,
            observed_at=timezone.now(),
            observed_health=Health.UP,
        )
        host = Host.objects.get(pk=context.identifiers["host"])
        set_limits(host)


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


class MakePool(HostStep):
    name, title = "pool", "Make the storage pool ready"

    def do(self, context: StepContext) -> None:
        wanted = context.spec["pinned"]["pool"]
        self.call(context, "ensure_pool", PoolSpec(wanted["name"], wanted["uuid"], wanted["path"]))
        host = Host.objects.get(pk=context.identifiers["host"])
        pool, _ = StoragePool.objects.get_or_create(uuid=wanted["uuid"], defaults={"name": wanted["name"]})
        attachment, _ = PoolAttachment.objects.get_or_create(
            host=host, pool=pool, defaults={"path": wanted["path"]}
        )
        for info in self.call(context, "list_pools"):
            if info.name == pool.name:
                note_pool(attachment, info)


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


def set_limits(host: Host) -> None:
    """Let the ledger know what the host can give: vCPUs with overcommit, memory without its own share.

    What foreign domains take is not there to give.
    """
    vcpus = host.observed_cpus * host.cpu_overcommit - host.observed_foreign_vcpus
    memory = host.observed_memory - host.memory_reserve - host.observed_foreign_memory
    limits = {Counter.Resource.VCPU: max(0, vcpus), Counter.Resource.MEMORY: max(0, memory)}
    for resource, limit in limits.items():
        Counter.objects.update_or_create(
            scope=host.scope, resource=resource, defaults={"limit": limit, "title": f"host {host.name}"}
        )


def note_pool(attachment: PoolAttachment, info: PoolInfo) -> None:
    """Write what was observed of a pool, and its capacity as the ledger's limit."""
    attachment.observed_capacity = info.capacity_bytes
    attachment.observed_available = info.available_bytes
    attachment.save(update_fields=["observed_capacity", "observed_available"])
    Counter.objects.update_or_create(
        scope=attachment.pool.scope,
        resource=Counter.Resource.DISK,
        defaults={"limit": info.capacity_bytes, "title": f"pool {attachment.pool.name}"},
    )


ENROL = Kind(
    name="hosts.enrol",
    title="Enrol a host",
    steps=(Reach(), Prove(), MakePool(), UploadImages()),
    # Whoever enrols a host that does not answer wants to know it now.
    waits_for_host=False,
    cancellable=True,
)
