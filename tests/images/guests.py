"""A guest started from a built image through the driver; for the tests of images only."""

import json
import os
import select
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from portal.drivers.base import HypervisorDriver
from portal.drivers.types import (
    Accelerator,
    DeviceModel,
    DiskSpec,
    DomainSpec,
    DomainState,
    NetworkSpec,
    NicSpec,
    PoolSpec,
    SeedSpec,
    VolumeSpec,
)

URI = os.environ.get("GATEHOUSE_TEST_LIBVIRT_URI", "qemu:///system")
POOL_ROOT = os.environ.get("GATEHOUSE_TEST_POOL_ROOT", "/var/lib/libvirt/images")
GIB = 1024**3
T = TypeVar("T")
HOSTNAME = "seeded"
# What `openssl passwd -6 -salt gatehouse console-only` prints.
HASH = "$6$gatehouse$u6dmk6GZp4qRAJ6.er8vbrFzwoFlxvLQtGikHav4N.rY/p/NaHvLqWaBSUdwYFRq/O8AURWlEKOLx0/t29.5h0"
SSH_OPTIONS = (
    "BatchMode=yes",
    "ConnectTimeout=20",
    "IdentitiesOnly=yes",
    "LogLevel=ERROR",
    "StrictHostKeyChecking=no",
    "UserKnownHostsFile=/dev/null",
)


def wait_for(what: str, seconds: int, ask: Callable[[], T]) -> T:
    """Ask every second until the answer is true. Raises TimeoutError, naming what was missing."""
    deadline = time.monotonic() + seconds
    while not (answer := ask()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"no {what} after {seconds} s")
        time.sleep(1)
    return answer


def as_yaml(key: str) -> str:
    return f"#cloud-config\nssh_authorized_keys:\n  - {key}\n"


def as_json(key: str) -> str:
    return "#cloud-config\n" + json.dumps({"ssh_authorized_keys": [key], "password": HASH})


@dataclass
class Guest:
    """One machine with its pool and network, all named after `prefix`."""

    driver: HypervisorDriver
    prefix: str
    image: dict
    subnet: str
    key: Path
    patience: int
    user_data: Callable[[str], str]
    devices: DeviceModel = DeviceModel.PARAVIRTUAL
    address: str = ""

    def __post_init__(self) -> None:
        self.uuid = str(uuid.uuid5(uuid.NAMESPACE_DNS, self.prefix))
        self.pool = PoolSpec(f"{self.prefix}-pool", self.uuid, f"{POOL_ROOT}/{self.prefix}")
        self.mac = f"52:54:00:{self.prefix[-6:-4]}:{self.prefix[-4:-2]}:{self.prefix[-2:]}"

    def start(self, images: Path) -> None:
        """Clone the image into a pool of its own, grown by a GiB, and boot it with a seed."""
        self.driver.ensure_pool(self.pool)
        base = Path(self.pool.path) / "base.qcow2"
        shutil.copyfile(images / self.image["file"], base)
        self.driver.remove_pool(self.pool.name)  # defined anew, the pool sees the copy
        self.driver.ensure_pool(self.pool)
        size = self.image["virtual_size_bytes"] + GIB
        disk = self.driver.create_volume(VolumeSpec(self.pool.name, "disk.qcow2", size, str(base)))
        self.driver.ensure_network(self._network())
        self.driver.define(self._domain(disk.path, self._seed()))
        self.driver.start(self.uuid)

    def _network(self) -> NetworkSpec:
        first, last = (f"{self.subnet}.{end}" for end in (10, 50))
        return NetworkSpec(
            f"{self.prefix}-net", self.uuid, f"gt{self.prefix[-8:]}", f"{self.subnet}.1", 24, first, last
        )

    def _seed(self) -> str:
        network = {"card0": {"match": {"macaddress": self.mac}, "dhcp4": True}}
        seed = SeedSpec(
            pool=self.pool.name,
            name="seed.iso",
            meta_data=f"instance-id: {self.uuid}\nlocal-hostname: {HOSTNAME}\n",
            user_data=self.user_data(self.key.with_suffix(".pub").read_text().strip()),
            network_config=json.dumps({"version": 2, "ethernets": network}),
        )
        return self.driver.write_seed(seed).path

    def _domain(self, disk: str, seed: str) -> DomainSpec:
        return DomainSpec(
            name=f"{self.prefix}-vm",
            uuid=self.uuid,
            vcpus=1,
            memory_bytes=self.image["min_memory_bytes"],
            disks=(DiskSpec(disk, self.disk_name),),
            nics=(NicSpec(self.mac, f"{self.prefix}-net"),),
            seed_path=seed,
            accelerator=Accelerator.EMULATION,
            devices=self.devices,
        )

    @property
    def disk_name(self) -> str:
        """The first disk, as libvirt and the guest both call it."""
        return "sda" if self.devices is DeviceModel.EMULATED else "vda"

    def remove(self) -> None:
        """Remove everything, whatever there is of it."""
        self.driver.destroy(self.uuid)
        self.driver.undefine(self.uuid)
        self.driver.remove_network(f"{self.prefix}-net")
        for name in ("disk.qcow2", "base.qcow2", "seed.iso"):
            self.driver.delete_volume(self.pool.name, name)
        self.driver.remove_pool(self.pool.name)

    def is_off(self) -> bool:
        return self.driver.domain_info(self.uuid).state is DomainState.SHUTOFF

    def lease(self) -> str:
        """Return the leased address, or nothing yet."""
        return next((info.address for info in self.driver.addresses(self.uuid)), "")

    def ssh(
        self, command: str, *options: str, told: str = "", seconds: int = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as the image's login user, `told` on its input; never raises for its result."""
        target = f"{self.image['login_user']}@{self.address}"
        words = [word for option in SSH_OPTIONS for word in ("-o", option)]
        call = ["ssh", *words, "-i", str(self.key), *options, target, command]
        return subprocess.run(call, input=told, capture_output=True, text=True, timeout=seconds)

    def virsh(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Ask what the driver's contract has no call for."""
        call = ["virsh", "-q", "-c", URI, *words]
        return subprocess.run(call, capture_output=True, text=True, timeout=30)

    def serial_says(self, text: str) -> bool:
        """Press Enter on the serial console and look for a text in what comes back."""
        path = self.virsh("ttyconsole", f"{self.prefix}-vm").stdout.strip()
        console = os.open(path, os.O_RDWR | os.O_NOCTTY)
        try:
            os.write(console, b"\r")
            seen = b""
            while select.select([console], [], [], 2)[0]:
                seen += os.read(console, 4096)
            return text.encode() in seen
        finally:
            os.close(console)
