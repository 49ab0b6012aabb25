"""Pool calls; not for volumes or XML."""

import time
from contextlib import suppress

import libvirt

from portal.drivers.errors import CallTimeout, NotSupported, PoolInactive, PoolNotFound
from portal.drivers.libvirt.errors import translated
from portal.drivers.libvirt.lookup import define_once
from portal.drivers.libvirt.xml.volume import PoolElement
from portal.drivers.types import FOLDER_KINDS, POOL_PREFIX, PoolInfo, PoolKind, PoolSpec, VolumeVerb
from portal.drivers.validation import check_can, check_known, check_pool

BUSY = "asynchronous jobs running"  # libvirt has no code of its own for it
RETRY_SECONDS = 0.05
FULL_SHARE = 4


def refresh(pool: libvirt.virStoragePool, wait_seconds: float = 0.0) -> bool:
    """Read the pool's folder again; return False when it stayed busy for `wait_seconds`.

    libvirt refuses while it makes a volume in that pool, which may take as long as a full clone.
    """
    end = time.monotonic() + wait_seconds
    while True:
        try:
            pool.refresh()
            return True
        except libvirt.libvirtError as error:
            if BUSY not in str(error):
                raise
        if time.monotonic() >= end:
            return False
        time.sleep(RETRY_SECONDS)


def refresh_surely(pool: libvirt.virStoragePool, wait_seconds: float = 60.0) -> None:
    """Read the pool's folder again. Raises CallTimeout when it stays busy."""
    if not refresh(pool, wait_seconds):
        raise CallTimeout(f"pool {pool.name()} is busy")


def kind_of(pool: libvirt.virStoragePool) -> str:
    """Return the kind of a pool, in libvirt's words."""
    return PoolElement.info(pool.XMLDesc(), active=True).kind


def need(pool: libvirt.virStoragePool, verb: VolumeVerb) -> str:
    """Return the kind of a pool. Raises NotSupported when libvirt does not do that to its volumes."""
    kind = kind_of(pool)
    check_can(kind, verb)
    return kind


def _info(pool: libvirt.virStoragePool) -> PoolInfo:
    active, autostart = bool(pool.isActive()), bool(pool.autostart())
    # What starts with its host is defined: most pools need no further call.
    return PoolElement.info(pool.XMLDesc(), active, autostart, autostart or bool(pool.isPersistent()))


def _is_full(info: PoolInfo) -> bool:
    """Tell whether a pool of the portal's own has less room than one in FULL_SHARE of it."""
    ours = info.active and info.name.startswith(POOL_PREFIX)
    return ours and info.available_bytes * FULL_SHARE < info.capacity_bytes


class Pools:
    """The storage pools of one connection; the contract is in `portal.drivers.base`."""

    def __init__(self, connection: libvirt.virConnect) -> None:
        self._connection = connection

    @translated()
    def get(self, name: str) -> libvirt.virStoragePool:
        """Return libvirt's pool, which runs. Raises PoolNotFound, PoolInactive.

        libvirt has one code for a pool that does not run and for a volume that is being written.
        """
        pool = self._find(name)
        if not pool.isActive():
            raise PoolInactive(f"storage pool {name} is not active")
        return pool

    @translated()
    def _find(self, name: str) -> libvirt.virStoragePool:
        return self._connection.storagePoolLookupByName(check_known(name))

    @translated()
    def ensure(self, spec: PoolSpec) -> None:
        """Define a pool unless it exists, to start with its host; build its directory and start it."""
        check_pool(spec)

        def define() -> libvirt.virStoragePool:
            made = self._connection.storagePoolDefineXML(PoolElement.to_xml(spec))
            made.setAutostart(1)
            return made

        pool = define_once(
            self._connection.storagePoolLookupByUUIDString,
            self._connection.storagePoolLookupByName,
            spec.name,
            spec.uuid,
            define,
        )
        if not pool.isActive():
            # To build one that is no folder would be to write to devices.
            self._start(pool, libvirt.VIR_STORAGE_POOL_CREATE_WITH_BUILD if spec.kind in FOLDER_KINDS else 0)

    @staticmethod
    def _start(pool: libvirt.virStoragePool, build: int = 0) -> None:
        try:
            pool.create(build)
        except libvirt.libvirtError:
            # Someone else may have started it between the two calls.
            if not pool.isActive():
                raise

    @translated()
    def start(self, name: str) -> None:
        """Start a pool as it is; running already is no error."""
        pool = self._find(name)
        if not pool.isActive():
            self._start(pool)

    @translated()
    def stop(self, name: str) -> None:
        """Stop a pool; stopped already is no error."""
        pool = self._find(name)
        try:
            if pool.isActive():
                pool.destroy()
        except libvirt.libvirtError as error:
            if BUSY in str(error):
                raise CallTimeout(f"pool {name} is busy") from error
            if pool.isActive():
                raise

    @translated()
    def autostart(self, name: str, on: bool) -> None:
        """Let a pool start with its host, or not."""
        self._find(name).setAutostart(int(on))

    @translated()
    def kinds(self) -> tuple[PoolKind, ...]:
        """Return the kinds that the host says it has; a libvirt that cannot say so has folders."""
        try:
            with translated():
                return PoolElement.offered(self._connection.getStoragePoolCapabilities())
        except NotSupported:
            return (PoolKind.DIR,)

    @translated()
    def refresh(self, name: str) -> PoolInfo:
        """Read what lies in a pool again and return its sizes."""
        pool = self.get(name)
        refresh_surely(pool)
        return _info(pool)

    @translated()
    def list(self) -> tuple[PoolInfo, ...]:
        """Return every pool by name; one that vanishes meanwhile is left out.

        The portal's own are read again while they are nearly full: libvirt does not notice room that somebody
        else makes there, and nothing would be built in them any more.
        """
        found = []
        for pool in self._connection.listAllStoragePools():
            try:
                info = _info(pool)
                if _is_full(info):
                    # One that cannot be read is stopped by libvirt, and told so.
                    with suppress(libvirt.libvirtError):
                        refresh(pool)
                    info = _info(pool)
                found.append(info)
            except libvirt.libvirtError as error:
                if error.get_error_code() != libvirt.VIR_ERR_NO_STORAGE_POOL:
                    raise
        return tuple(sorted(found, key=lambda info: info.name))

    @translated()
    def remove(self, name: str) -> None:
        """Stop and undefine a pool and remove its directory when empty; absent is no error."""
        try:
            pool = self._find(name)
        except PoolNotFound:
            return
        # To delete one that is no folder would be to destroy its volume group, or its pool of ZFS.
        folder = kind_of(pool) in FOLDER_KINDS
        if pool.isActive():
            refresh_surely(pool)
            # What is mounted has left an empty folder by then, whatever is in it.
            folder = folder and not pool.listAllVolumes()
            pool.destroy()
        if folder:
            # Of one that is stopped too: libvirtd may have died then. Only what is empty goes.
            with suppress(libvirt.libvirtError):
                pool.delete()
        pool.undefine()
