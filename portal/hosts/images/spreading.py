"""Copy the images that are there into pools of a host. Not for: imports, which copy one to all pools."""

from functools import partial

from django.db import transaction

from portal.drivers.types import BootFileSpec, VolumeInfo
from portal.hosts.images import boot_files
from portal.hosts.models import Image, ImageAttachment, PoolAttachment
from portal.hosts.steps import HostStep, once_reached
from portal.operations.registry import StepContext, StepFailed


class CopiesImages(HostStep):
    """A step that copies images into a pool."""

    timeout = 1800.0

    def fill(self, context: StepContext, place: PoolAttachment) -> list[StepFailed]:
        """Copy each image that machines are made from into a pool; return what failed. Idempotent.

        Nothing into one of a host that builds no machines. Raises StepFailed for what may succeed a little
        later.
        """
        if place.host.is_xen:
            return []
        failed: list[StepFailed] = []
        # What a newer build replaced cannot be copied any more, and what is deprecated need not be.
        for image in Image.objects.exclude(source="").filter(deprecated_at=None):
            try:
                self._copy(context, place, image)
            except StepFailed as failure:
                if failure.retryable:
                    raise
                # One that the pool has no room for does not keep the host from the others.
                failed.append(failure)
            context.check()
        return failed

    def _copy_disks(self, context: StepContext, pool: str, image: Image) -> VolumeInfo:
        """Copy the disks of an image; return where the first one lies."""
        sizes = [image.size, *(disk["size"] for disk in image.further)]
        found: list[VolumeInfo] = []
        for name, source, size in zip(image.volume_names, image.sources, sizes, strict=True):
            found.append(self.call(context, "upload_image", pool, name, source, size=size))
            context.check()
        return found[0]

    def _copy(self, context: StepContext, place: PoolAttachment, image: Image) -> None:
        """Copy one image. Of a network installer only the kernel: the initrd is each machine's own."""
        pool = place.pool.name
        copied: VolumeInfo
        if image.kind == Image.Kind.NETBOOT:
            kernel = BootFileSpec(pool, image.volume_name, f"{image.source}/linux")
            copied = self.call(context, "write_boot_file", kernel)
        else:
            copied = self._copy_disks(context, pool, image)
            boot_files.note(image)
        with transaction.atomic():
            # It may have been removed while the image was copied there.
            if not PoolAttachment.objects.select_for_update().filter(pk=place.pk).exists():
                raise StepFailed("pool_not_found", pool)
            ImageAttachment.objects.update_or_create(image=image, pool=place, defaults={"path": copied.path})


class FillFurtherPools(CopiesImages):
    """The images in the pools that a host was not added with. What fails is told, and keeps nobody."""

    name, title = "further", "Copy the images to the further pools"

    def do(self, context: StepContext) -> str | None:
        failed = []
        for place in self.places(context):
            try:
                failed += once_reached(context, partial(self.fill, place=place))
            except StepFailed as failure:
                failed.append(failure)
        return "image_not_everywhere" if failed else None

    def places(self, context: StepContext) -> list[PoolAttachment]:
        """Return the portal's own pools of files of the host that run, without its first one."""
        own = PoolAttachment.objects.filter(host=context.identifiers["host"], taken_over=False)
        mine = own.select_related("pool")
        return [place for place in mine.order_by("pk")[1:] if place.observed_active and place.has_folder]
