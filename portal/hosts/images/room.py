"""How much of the portal's own disk uploads still need until they are images. Not for: where their files lie.

What is sent is written several times: as it is sent, as the worker's copy, and as what is made of that. An
upload counts with all of it from its beginning, so that one that was begun can end.
"""

from contextlib import suppress

from portal.drivers.imagefile import begins_as_tar
from portal.drivers.qcow2 import MAGIC
from portal.hosts.images import store
from portal.hosts.models import Image, Upload

#: Bytes of a file that tell what it is.
HEAD = 512
State = Upload.State


def files_of(upload: Upload, head: bytes) -> int:
    """Return how many files of its length an upload has at most, by how it begins; b'' for not known yet.

    A qcow2 and a CD become the image as they are, a disk of another format becomes a qcow2, and out of an
    appliance comes a disk before that. What is packed inside may need more, which only the worker sees.
    """
    if upload.is_raw:
        return 3
    if upload.wanted["kind"] == Image.Kind.ISO or head.startswith(MAGIC):
        return 2
    return 4 if begins_as_tar(head) else 3


def needed_bytes(upload: Upload) -> int:
    """Return how many bytes more an upload will take; 0 for a file whose length nobody knows yet."""
    if not upload.file_size or upload.image_id is not None:
        return 0
    head = b""
    with suppress(OSError), store.open_part(upload) as file:
        head = file.read(HEAD)
    places = (store.part_of, store.taken_of, store.unpacked_of, store.image_of)
    there = sum(store.length(place(upload)) for place in places)
    return max(0, files_of(upload, head) * upload.file_size - there)


def promised_bytes(besides: Upload) -> int:
    """Return what all uploads under way but one still need."""
    under_way = Upload.objects.filter(state__in=[State.OPEN, State.HANDED]).exclude(pk=besides.pk)
    return sum(map(needed_bytes, under_way))


def free_bytes(upload: Upload) -> int:
    """Return how many bytes are there for one upload, others that are under way left out."""
    return max(0, store.free_bytes() - promised_bytes(upload))
