"""Bring volumes from hosts to the portal's own disk. Not for: what is made of them, nor who may have them."""

import shutil
from pathlib import Path

from portal.hosts.steps import HostStep
from portal.operations.registry import StepContext, StepFailed

#: Bytes that stay free where the files lie: the database may lie there too.
LEFT_FREE = 1 << 30


def need_room(folder: Path, wanted: int) -> None:
    """Raise StepFailed unless `wanted` bytes fit where `folder` lies, and LEFT_FREE beside them."""
    need, free = wanted + LEFT_FREE, shutil.disk_usage(folder).free
    if free < need:
        raise StepFailed("portal_full", f"{need} bytes are needed, {free} are free")


def bring(
    step: HostStep, context: StepContext, pool: str, volume: str, target: Path, *, size: int
) -> None:
    """Write a volume of `size` bytes to `target`, anew after an earlier attempt. Raises StepFailed."""
    try:
        step.call(context, "download_volume", pool, volume, str(target), size=size)
    except StepFailed as failure:
        # Of what is asked only the file here can be one that cannot be.
        if failure.code == "invalid_spec":
            raise StepFailed("portal_full", failure.raw) from failure
        raise
