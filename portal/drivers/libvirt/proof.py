"""Boot a tiny guest to see whether an accelerator works; not for what the host merely claims."""

import secrets
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import libvirt

from portal.drivers.errors import CallTimeout, HostUnreachable
from portal.drivers.libvirt.errors import translate, translated
from portal.drivers.libvirt.pool import Pools
from portal.drivers.libvirt.volume import Volumes
from portal.drivers.libvirt.xml.domain import DomainElement
from portal.drivers.libvirt.xml.probe import boot_disk, probe_xml
from portal.drivers.types import (
    PROBE_PREFIX,
    Accelerator,
    DiskSpec,
    DomainSpec,
    PoolSpec,
    Proof,
    VolumeSpec,
)

DISK = "sector.img"
STALE_SECONDS = 600
POLL_SECONDS = 0.05
MOST_BYTES = 256 * 1024  # read from a guest that is not ours to trust
IMAGE_MEMORY = 512 * 1024 * 1024
SIGN_IN = "login:"
#: A kernel that is not emulated says something long before so many seconds pass: a silent one hangs.
QUIET_SECONDS = 20.0
_NO_DATA = -2  # what recv returns when nothing waits


class Prover:
    """Proofs on one connection; the contract is in `portal.drivers.base`."""

    def __init__(self, connection: libvirt.virConnect, pools: Pools, volumes: Volumes) -> None:
        self._connection = connection
        self._pools = pools
        self._volumes = volumes

    @translated()
    def prove(self, accelerator: Accelerator, seconds: float) -> Proof:
        """Boot the sector and wait for its word."""
        self._sweep()
        name = _own_name()
        word = f"GATEHOUSE-{secrets.token_hex(8)}"
        with self._disk(name, word) as path:
            return self._answer(probe_xml(name, accelerator, path), word, seconds, seconds)

    @translated()
    def prove_image(self, accelerator: Accelerator, pool: str, name: str, seconds: float) -> Proof:
        """Boot a clone of the image and wait until it asks to sign in."""
        image = self._volumes.info(pool, name)
        self._sweep_clones(pool)
        own = _own_name()
        volume = f"{own}.qcow2"
        try:
            clone = self._volumes.create(VolumeSpec(pool, volume, image.capacity_bytes, image.path))
            spec = DomainSpec(
                name=own,
                uuid=str(uuid.uuid4()),
                vcpus=2,
                memory_bytes=IMAGE_MEMORY,
                disks=(DiskSpec(clone.path),),
                accelerator=accelerator,
            )
            quiet = QUIET_SECONDS if accelerator is Accelerator.KVM else seconds
            return self._answer(DomainElement.to_xml(spec), SIGN_IN, seconds, quiet)
        finally:
            self._volumes.delete(pool, volume)

    def _answer(self, xml: str, word: str, seconds: float, quiet: float) -> Proof:
        """Boot a machine; what the host refuses is an answer. Raises HostUnreachable, CallTimeout."""
        try:
            return self._boot(xml, word, seconds, quiet)
        except libvirt.libvirtError as error:
            problem = translate(error)
            if isinstance(problem, HostUnreachable | CallTimeout):
                raise
            return Proof(False, f"The host refused to start the guest: {problem.raw}")

    def _boot(self, xml: str, word: str, seconds: float, quiet: float) -> Proof:
        # Whatever becomes of this process, the guest goes with its connection.
        flags = libvirt.VIR_DOMAIN_START_AUTODESTROY | libvirt.VIR_DOMAIN_START_VALIDATE
        start = time.monotonic()
        domain = self._connection.createXML(xml, flags)
        try:
            heard = self._listen(domain, word.encode("ascii"), start + seconds, quiet)
            passed = time.monotonic() - start
        finally:
            _destroy(domain)
        if heard:
            return Proof(True, f"A guest booted and wrote {word} to its serial port after {passed:.1f} s.")
        return Proof(False, f"A guest started but did not write {word} to its serial port in {passed:.1f} s.")

    def _listen(self, domain: libvirt.virDomain, word: bytes, end: float, quiet: float) -> bool:
        """Return whether a guest says the word before `end`, and is not silent for `quiet` seconds before."""
        stream = self._connection.newStream(libvirt.VIR_STREAM_NONBLOCK)
        domain.openConsole(None, stream, 0)
        seen, spoke = b"", time.monotonic()
        try:
            while word not in seen:
                part = stream.recv(4096)
                if part == _NO_DATA:
                    if time.monotonic() >= min(end, spoke + quiet) or not domain.isActive():
                        return False
                    time.sleep(POLL_SECONDS)
                elif not part or len(seen) > MOST_BYTES:
                    return False
                else:
                    seen, spoke = seen + part, time.monotonic()
            return True
        finally:
            stream.abort()

    @contextmanager
    def _disk(self, name: str, word: str) -> Iterator[str]:
        """Make a pool with the sector in it, and remove both."""
        folder = f"{self._base()}/{name}"
        try:
            self._pools.ensure(PoolSpec(name, str(uuid.uuid4()), folder))
            self._volumes.write_raw(name, DISK, boot_disk(word))
            yield f"{folder}/{DISK}"
        finally:
            self._remove(name)

    def _base(self) -> str:
        """Return a folder that the emulator may read: a user's own daemon cannot write the system's."""
        return "/var/lib/libvirt/images" if self._connection.getURI().endswith("/system") else "/var/tmp"  # noqa: S108

    def _remove(self, name: str) -> None:
        self._volumes.delete(name, DISK)
        self._pools.remove(name)

    def _sweep(self) -> None:
        """Remove the pools of proofs that were interrupted; their guests went with their connections."""
        for pool in self._connection.listAllStoragePools():
            if _is_stale(pool.name()):
                self._remove(pool.name())

    def _sweep_clones(self, pool: str) -> None:
        for volume in self._volumes.list(pool):
            if _is_stale(volume.name):
                self._volumes.delete(pool, volume.name)


def _own_name() -> str:
    return f"{PROBE_PREFIX}-{int(time.time())}-{secrets.token_hex(4)}"


def _is_stale(name: str) -> bool:
    """Tell by its name whether a proof left something long ago."""
    prefix, _, rest = name.rpartition("-")[0].rpartition("-")
    return prefix == PROBE_PREFIX and rest.isdecimal() and int(rest) < time.time() - STALE_SECONDS


def _destroy(domain: libvirt.virDomain) -> None:
    try:
        domain.destroy()
    except libvirt.libvirtError as error:
        # A guest that ended by itself is gone already.
        if error.get_error_code() not in {libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID}:
            raise
