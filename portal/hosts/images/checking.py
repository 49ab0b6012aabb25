"""The step that looks at a file which somebody handed in, and makes of it what an image is made of.

Not for: what is an image, which `drivers.imagefile` judges, nor what an appliance says (`appliances`).
"""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from django.conf import settings

from portal.drivers import imagefile
from portal.drivers.errors import DriverError
from portal.hosts.images import appliances, store
from portal.hosts.models import Image, Upload
from portal.operations.registry import Step, StepContext, StepFailed

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_BROKEN = frozenset({errno.EIO, errno.EROFS})


def upload_of(context: StepContext) -> Upload:
    """Return the upload. Raises StepFailed when it was thrown away."""
    upload = Upload.objects.filter(pk=context.identifiers["upload"]).first()
    if upload is None:
        raise StepFailed("upload_gone")
    return upload


@contextmanager
def _own_fault(upload: Upload) -> Iterator[None]:
    """Throw the file away when it is what is wrong. Raises StepFailed."""
    try:
        yield
    except imagefile.Unfit as unfit:
        store.forget(upload)
        raise StepFailed(unfit.code, unfit.raw) from unfit


def of_disk(error: OSError, otherwise: str) -> StepFailed:
    """Return how a step fails by what the portal's own disk said; `otherwise` is the code for the rest."""
    code = "store_full" if error.errno in _FULL else "store_failed" if error.errno in _BROKEN else otherwise
    return StepFailed(code, error.strerror or str(error))


def look(context: StepContext) -> None:
    """Raise when the operation is to end, or the portal's disk is as full as it may be (StepFailed)."""
    context.check()
    if not store.free_bytes():
        raise StepFailed("store_full")


class Check(Step):
    """What the file is; a disk of another format, and that of an appliance, becomes a qcow2."""

    name, title = "check", "See whether it is an image that stands by itself"

    def do(self, context: StepContext) -> str | None:
        upload = upload_of(context)
        taken = store.taken_of(upload)
        try:
            with _own_fault(upload):
                remark = self._check(context, upload)
        except DriverError as error:
            raise StepFailed(error.code, error.raw) from error
        except OSError as error:
            raise of_disk(error, "store_failed" if taken.exists() else "upload_gone") from error
        upload.refresh_from_db(fields=["told"])
        # By what is kept: whoever did it may have died before the operation knew.
        if upload.told.get("data"):
            return "appliance_data"
        return "appliance_blank" if upload.told.get("blank") else remark

    def _check(self, context: StepContext, upload: Upload) -> str | None:
        taken, image = store.taken_of(upload), store.image_of(upload)
        # An earlier attempt may have given the file its last name already.
        there, from_ova = taken if taken.exists() else image, None
        iso = upload.wanted["kind"] == Image.Kind.ISO
        # What an earlier attempt made of a raw disk is a qcow2.
        raw = upload.is_raw and there is taken
        remark = "raw_looks_otherwise" if raw and imagefile.looks_otherwise(str(taken)) else None
        if there is taken and not iso and not raw and imagefile.is_tar(str(taken)):
            # What an earlier attempt left takes room, and is made anew.
            store.remove(store.unpacked_of(upload), image, *store.furthers_of(upload))
            from_ova = self._take_disk(context, upload, upload.disk)
            there = taken if from_ova is None else store.unpacked_of(upload)
        if there is taken and upload.disk is not None:
            raise self._no_disk(upload, appliances.NoDisk("appliance_none", str(upload.disk)))
        found = self._judge(context, upload, there, from_ova, iso=iso, raw=raw)
        self._put(context, there, image, found)
        if from_ova is not None and from_ova.whole:
            from_ova.told["further"] = [
                self._take_further(context, upload, number) for number in range(2, from_ova.disks + 1)
            ]
        rows = Upload.objects.filter(pk=upload.pk)
        # Before the archive goes: what it says is nowhere else.
        if from_ova is not None:
            rows.update(told=from_ova.told)
        rows.update(format="raw" if found.format == "iso" else "qcow2", capacity=found.capacity_bytes)
        store.remove(taken, store.unpacked_of(upload))
        return remark

    def _judge(
        self,
        context: StepContext,
        upload: Upload,
        path: Path,
        from_ova: appliances.Taken | None,
        *,
        iso: bool = False,
        raw: bool = False,
    ) -> imagefile.Judged:
        """Return what a file is, at last a disk of data. Raises Unfit, StepFailed."""
        judge = partial(
            imagefile.judge,
            str(path),
            iso=iso,
            most_capacity=settings.UPLOAD_MOST_CAPACITY,
            check=lambda: look(context),
        )
        try:
            return judge(raw=raw)
        except imagefile.Unfit as unfit:
            return self._as_data(unfit, upload, from_ova, judge)

    def _put(self, context: StepContext, there: Path, image: Path, found: imagefile.Judged) -> None:
        """Make a disk that was judged what it is in the end."""
        if found.format not in {"qcow2", "iso"}:
            imagefile.to_qcow2(
                str(there),
                str(image),
                found.capacity_bytes,
                form=found.format,
                room_bytes=store.free_bytes(),
                check=lambda: look(context),
                progress=context.progress,
            )
        elif there != image:
            os.replace(there, image)

    def _take_further(self, context: StepContext, upload: Upload, number: int) -> dict[str, Any]:
        """Take a further disk out of the appliance, as the first one; return what the image keeps of it."""
        unpacked, target = store.unpacked_of(upload), store.further_of(upload, number)
        store.remove(unpacked)
        taken = self._take_disk(context, upload, number)
        if taken is None:
            raise imagefile.Unfit("appliance_unfit", "it is no appliance any more")
        found = self._judge(context, upload, unpacked, taken)
        self._put(context, unpacked, target, found)
        sizes = {"size": target.stat().st_size, "capacity": found.capacity_bytes}
        return {"sha256": taken.sha256, **sizes, "source": str(target)}

    def _as_data(
        self,
        unfit: imagefile.Unfit,
        upload: Upload,
        from_ova: appliances.Taken | None,
        judge: Callable[..., imagefile.Judged],
    ) -> imagefile.Judged:
        """Return what is of no known format as a raw disk of data. Raises Unfit, StepFailed for none."""
        if unfit.code != "image_unknown":
            raise unfit
        if from_ova is not None:
            from_ova.check_data(starts=upload.pool_id is None)
            from_ova.told["data"] = True
            return judge(raw=True)
        if upload.pool_id is not None:
            # It is kept: on the upload's page a person can say that it is a raw disk.
            raise StepFailed("volume_unknown") from unfit
        raise unfit

    def _take_disk(
        self, context: StepContext, upload: Upload, number: int | None
    ) -> appliances.Taken | None:
        try:
            return appliances.take_disk(
                store.taken_of(upload),
                store.unpacked_of(upload),
                number=number,
                # As a volume of a pool it is one disk.
                whole=upload.pool_id is None,
                room_bytes=store.free_bytes(),
                check=lambda: look(context),
            )
        except appliances.NoDisk as none:
            raise self._no_disk(upload, none) from none

    def _no_disk(self, upload: Upload, none: appliances.NoDisk) -> StepFailed:
        # The file is kept: on the upload's page a person chooses from these.
        Upload.objects.filter(pk=upload.pk).update(disks=none.disks)
        return StepFailed(none.code, none.raw)

    def undo(self, context: StepContext) -> None:
        upload = Upload.objects.filter(pk=context.identifiers["upload"]).first()
        if upload is not None:
            store.remove(store.image_of(upload), store.unpacked_of(upload), *store.furthers_of(upload))
