"""Rows `upload.*`: an image of 1 GiB goes from a file to the pool, beside curl into a bare receiver.

The portal's side sends what the page's script sends, in chunks of the same length, one after the other, and
ends when the import has succeeded: the file is received and passed on to the keeper, where nobody else can
write to it, its SHA-256 computed, judged in the sandbox, and in the pool. By hand curl sends the file to a
process that computes the SHA-256 while it receives, writes it to a disk, and uploads it as a volume by the
same code. Which comes first is drawn by lot. Meanwhile the memory of the portal's processes is watched.
"""

import base64
import hashlib
import json
import os
import random
import secrets
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import libvirt
from django.urls import reverse

from portal.accounts.models import User
from portal.drivers.libvirt import upload
from portal.drivers.libvirt.xml.volume import VolumeElement
from portal.hosts.images.services import begin_upload
from portal.hosts.images.values import Wanted
from portal.hosts.models import PoolAttachment
from portal.operations.models import Operation
from tests.bench import build
from tests.bench.copies import ended
from tests.bench.live import pss
from tests.bench.measure import Row, median
from tests.bench.portal import Person, Portal, started

LENGTH, CHUNK, HEAD = 1 << 30, 8 << 20, 4096
PAIRS, WARM = 4, 1
RATIO, GROWTH = 1.3, 48.0
PIECE = 1 << 20


def measure() -> Iterator[Row]:
    """Yield the ratio and how much the portal's processes grew.

    `upload.ratio`: red when CHUNK is 64 KiB. `upload.memory`: red when a chunk is read as a whole
    (`stream.read()` in store._pieces), or the worker or the keeper reads the file at once.
    """
    with started() as portal, tempfile.TemporaryDirectory(prefix="gttest-upload-") as folder:
        memory = Memory(portal)
        pairs = _pairs(portal, Path(folder), memory)
    ours, by_hand = (median([pair[side] for pair in pairs]) for side in (0, 1))
    note = f"median of {PAIRS} ratios; medians {ours:.1f} s, by hand {by_hand:.1f} s"
    yield Row("upload.ratio", median([ours / by_hand for ours, by_hand in pairs]), "x", RATIO, note)
    note = f"web, worker and consoles, most above {memory.idle:.0f} MiB"
    yield Row("upload.memory", memory.most - memory.idle, "MiB", GROWTH, note)


def _pairs(portal: Portal, folder: Path, memory: "Memory") -> list[tuple[float, float]]:
    admin, pool = Person(portal, "admin"), PoolAttachment.objects.select_related("pool").get().pool.name
    pairs = []
    for number in range(WARM + PAIRS):
        pair, sides = [0.0, 0.0], [0, 1]
        random.shuffle(sides)
        for side in sides:
            file = _image(folder)
            subprocess.run(["sync"], check=True)
            if side:
                pair[1] = _by_hand(file, folder, pool)
            else:
                with memory.watched(number >= WARM):
                    pair[0] = _by_portal(admin, file)
            file.unlink()
        pairs.append((pair[0], pair[1]))
    return pairs[WARM:]


def _image(folder: Path) -> Path:
    """Return a new qcow2 file of 1 GiB, of which nothing can be left out."""
    raw, image = folder / "raw", folder / f"{secrets.token_hex(4)}.qcow2"
    with raw.open("wb") as file:
        for _ in range(LENGTH // PIECE):
            file.write(os.urandom(PIECE))
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", raw, image], check=True)
    raw.unlink()
    return image


def _by_portal(admin: Person, file: Path) -> float:
    """Return the seconds from the first byte until the image can be used."""
    name = f"gttest-{secrets.token_hex(4)}"
    wanted = Wanted(kind="disk", name=name, title=name, version="1", device_models=("paravirtual",))
    handed_in = begin_upload(actor=User.objects.get(username="admin"), wanted=wanted)
    size = file.stat().st_size
    began = time.perf_counter()
    with file.open("rb") as content:
        head = base64.b64encode(content.read(HEAD)).decode()
        told = {"name": file.name, "size": str(size), "head": head}
        status, answer = admin.post(reverse("vms:upload_start", args=[handed_in.pk]), told)
        there = json.loads(answer)["offset"]
        while status == 200 and there < size:
            content.seek(there)
            url = reverse("vms:upload_chunk", args=[handed_in.pk, there])
            status, answer = admin.send(url, content.read(CHUNK))
            there = json.loads(answer).get("offset", there)
    if status != 200:
        raise RuntimeError(f"the upload was answered by {status}: {answer}")
    return ended(Operation.objects.get(subject=handed_in.topic)) - began


def _by_hand(file: Path, folder: Path, pool: str) -> float:
    """Return the seconds from the first byte until the volume is there; its file is deleted again."""
    receiver = _Receiver(folder, pool)
    threading.Thread(target=receiver.handle_request, daemon=True).start()
    address = f"http://127.0.0.1:{receiver.server_port}/"
    began = time.perf_counter()
    subprocess.run(["curl", "-sS", "--fail", "-T", file, address], check=True, capture_output=True)
    took = time.perf_counter() - began
    receiver.server_close()
    receiver.volume.delete()
    return took


class _Receiver(HTTPServer):
    """Takes one file by PUT, and makes a volume of it."""

    volume: libvirt.virStorageVol

    def __init__(self, folder: Path, pool: str) -> None:
        super().__init__(("127.0.0.1", 0), _Taking)
        self.folder, self.pool = folder, pool
        self.connection = libvirt.open(build.URI)


class _Taking(BaseHTTPRequestHandler):
    server: _Receiver

    def do_PUT(self) -> None:
        left, found = int(self.headers["Content-Length"]), hashlib.sha256()
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(100)
            self.end_headers()
        path = self.server.folder / "received"
        with path.open("wb") as file:
            while left:
                piece = self.rfile.read(min(PIECE, left))
                found.update(piece)
                file.write(piece)
                left -= len(piece)
        pool = self.server.connection.storagePoolLookupByName(self.server.pool)
        name = f"gttest-{found.hexdigest()[:12]}.qcow2"
        volume = pool.createXML(VolumeElement.raw_xml(name, path.stat().st_size))
        upload.write_file(self.server.connection, volume, str(path), 0)
        path.unlink()
        self.server.volume = volume
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_args: object) -> None:
        """Say nothing."""


class Memory:
    """The proportional memory of the portal's web process, its worker and its keeper, with all children."""

    def __init__(self, portal: Portal) -> None:
        self._portal = portal
        self.idle, self.most = 0.0, 0.0

    def watched(self, counts: bool) -> "_Watch":
        """Return what watches while a block runs; before the first that `counts` nothing is noted."""
        if counts and not self.idle:
            self.idle = self.now()
        return _Watch(self if counts else None)

    def now(self) -> float:
        """Return it in MiB."""
        found = 0.0
        for part in ("web", "worker", "consoles"):
            for pid in _tree(self._portal.pid(part)):
                # One that ends at this moment has none.
                with suppress(OSError, RuntimeError):
                    found += pss(pid)
        return found


class _Watch:
    def __init__(self, memory: Memory | None) -> None:
        self._memory, self._over = memory, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while self._memory and not self._over.wait(0.2):
            self._memory.most = max(self._memory.most, self._memory.now())


def _tree(pid: int) -> list[int]:
    """Return a process and all that it started, but those that end meanwhile."""
    found = [pid]
    for parent in found:
        try:
            children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        except FileNotFoundError:
            continue
        found += [int(child) for child in children]
    return found
