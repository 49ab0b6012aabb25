"""Consoles of real guests on a libvirtd of their own."""

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path

import pytest

from portal.drivers import errors
from portal.drivers.base import HypervisorDriver
from portal.drivers.console import ConsoleKind, EndReason, open_console
from portal.drivers.registry import driver_for
from portal.drivers.types import Accelerator, DiskSpec, DomainSpec
from tests.drivers.test_console import (
    LIMIT,
    MIB,
    MISSING,
    children,
    peak_memory,
    read_to_end,
    read_until,
    ready,
    wait_for,
)

FLOOD = MIB
pytestmark = pytest.mark.live

# A guest of 110 bytes that boots at once: it says '>', then echoes its serial line. Some letters are orders.
BOOT_SECTOR = bytes.fromhex(
    "fa 31c0 8ed8 8ed0 bc007c"  # start:  no interrupts; ds = ss = 0, sp = 0x7c00
    "bafb03 b003 ee"  #                   line control: 8 bits, no parity
    "bafa03 b007 ee"  #                   FIFO on and empty
    "b03e e84400"  #                      put '>'
    "bafd03 ec a801 74f8"  #      loop:   wait until a byte has come
    "baf803 ec"  #                        read it
    "3c46 740d 3c4e 741f 3c51 7422"  #    'F' flood, 'N' never, 'Q' quit
    "e82900 ebe3"  #                      put it; loop
    "66b900001000"  #             flood:  count = 1 MiB
    "b066 e81c00 6649 75f7"  #            put 'f' that often
    "b021 e81300 ebcd"  #                 put '!'; loop
    "b06e e80c00 ebf9"  #         never:  put 'n' for ever, and read nothing
    "ba0406 b80020 ef f4 ebfd"  # quit:   power off by ACPI (q35 has PM1a_CNT at 0x604)
    "50 bafd03 ec a820 74fb"  #   put:    wait until a byte may go
    "58 baf803 ee c3"  #                  send it
)


@dataclass
class Bench:
    """A libvirtd of its own, as an unprivileged user: stopping it disturbs nobody."""

    pid: int
    uri: str
    driver: HypervisorDriver
    spec: DomainSpec


@pytest.fixture(scope="module")
def bench():
    home = Path(tempfile.mkdtemp(prefix="gttest-c-", dir="/tmp"))  # a socket's path must be short
    config = home / "c/libvirt"
    config.mkdir(parents=True)
    (config / "qemu.conf").write_text('stdio_handler = "file"\n')  # else a virtlogd would stay behind
    (home / "disk.img").write_bytes(BOOT_SECTOR.ljust(510, b"\0") + b"\x55\xaa" + bytes(MIB - 512))
    command = ["libvirtd"]
    if os.geteuid() == 0:
        for path in (home, *home.rglob("*")):
            os.chown(path, 65534, 65534)
        command = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", *command]
    environment = {**os.environ, "HOME": str(home), "XDG_RUNTIME_DIR": str(home),
                   "XDG_CONFIG_HOME": str(home / "c"), "XDG_CACHE_HOME": str(home / "k")}
    log = home / "log"
    with log.open("w") as out:
        process = subprocess.Popen(command, env=environment, cwd="/", stdout=out, stderr=out)
    path = home / "libvirt/libvirt-sock"
    spec = DomainSpec("gttest-c-guest", str(uuid.uuid4()), 1, 32 * MIB,
                      disks=(DiskSpec(str(home / "disk.img"), format="raw"),),
                      accelerator=Accelerator.EMULATION)
    try:
        wait_for(lambda: path.exists() or process.poll() is not None, log.read_text)
        uri = f"qemu+unix:///session?socket={path}"
        driver = driver_for(uri)
        driver.define(spec)
        yield Bench(process.pid, uri, driver, spec)
        driver.destroy(spec.uuid)
        driver.undefine(spec.uuid)
        driver.close()
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(home)


@pytest.fixture
def guest(bench):
    """The guest, freshly started."""
    bench.driver.destroy(bench.spec.uuid)
    bench.driver.start(bench.spec.uuid)
    return bench


def opened(bench, kind=ConsoleKind.SERIAL, limit=LIMIT):
    return open_console(bench.uri, bench.spec.uuid, kind, timeout=limit)


def test_an_absent_daemon_is_unreachable():
    uri = "qemu+unix:///system?socket=/nonexistent/libvirt-sock"
    with pytest.raises(errors.HostUnreachable, match="nonexistent"):
        asyncio.run(open_console(uri, MISSING, ConsoleKind.SERIAL, timeout=LIMIT))


@pytest.mark.parametrize("kind", list(ConsoleKind))
def test_an_unknown_machine_and_one_that_is_off_are_named(bench, kind):
    bench.driver.destroy(bench.spec.uuid)
    with pytest.raises(errors.InvalidState):
        asyncio.run(opened(bench, kind))
    with pytest.raises(errors.DomainNotFound):
        asyncio.run(open_console(bench.uri, MISSING, kind, timeout=LIMIT))


def test_a_guest_echoes_every_byte(guest):
    """4 KiB are far more than its FIFO of 16: red when SerialConsole.send gives up after one call's part."""
    typed = bytes(range(0x80, 0x100)) * 32

    async def scenario():
        async with await opened(guest) as stream:
            await ready(stream)
            heard, _none = await asyncio.gather(read_until(stream, b"."), stream.write(typed + b"."))
            assert heard == typed + b"."

    asyncio.run(scenario())


def test_the_newest_viewer_wins_and_the_earlier_one_is_told(guest):
    """Red when SerialConsole opens without FORCE."""

    async def scenario():
        async with await opened(guest) as first:
            await ready(first)
            async with await opened(guest) as second:
                assert await read_to_end(first) is EndReason.REPLACED
                await ready(second)

    asyncio.run(scenario())


def qemu_of(bench) -> int:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if any(bench.spec.uuid.encode() in word for word in words) and b"qemu" in words[0]:
            return int(path.parent.name)
    raise AssertionError("the guest has no process")


@pytest.mark.parametrize("way", ["forced off", "powers itself off", "its emulator dies"])
def test_a_guest_that_goes_off_ends_both_consoles(guest, way):
    """Red when _Domain.why does not wait for libvirt to notice: the emulator's death is seen late."""

    async def scenario():
        async with await opened(guest) as serial, await opened(guest, ConsoleKind.VNC) as screen:
            await ready(serial)
            if way == "forced off":
                await asyncio.to_thread(guest.driver.destroy, guest.spec.uuid)
            elif way == "powers itself off":
                await serial.write(b"Q")
            else:
                os.kill(qemu_of(guest), signal.SIGKILL)
            assert await read_to_end(serial) is EndReason.OFF
            assert await read_to_end(screen) is EndReason.OFF

    asyncio.run(scenario())


def test_the_screen_shakes_hands(guest):
    """The client says its version and is offered the security type 1, none: no password was asked for."""

    async def scenario():
        async with await opened(guest, ConsoleKind.VNC) as screen:
            assert await read_until(screen, b"\n") == b"RFB 003.008\n"
            await screen.write(b"RFB 003.008\n")
            assert await read_until(screen, b"\x01\x01") == b"\x01\x01"

    asyncio.run(scenario())


def test_a_flood_that_nobody_reads_waits_in_the_guest(guest):
    """Red when the child's connection has an event loop: libvirt's library then reads ahead without limit."""

    async def scenario():
        async with await opened(guest) as stream:
            await ready(stream)
            before = peak_memory(stream)
            await stream.write(b"F")
            await asyncio.sleep(3)
            assert peak_memory(stream) - before < MIB // 2
            flood = await read_until(stream, b"!")
            assert flood == b"f" * FLOOD + b"!"
            assert peak_memory(stream) - before < MIB // 2

    asyncio.run(scenario())


def test_a_frozen_daemon_costs_a_bounded_time_and_leaves_no_child(guest):
    """Never ends when open_console has no limit."""
    before = children()
    os.kill(guest.pid, signal.SIGSTOP)
    try:
        for kind in ConsoleKind:
            with pytest.raises(errors.CallTimeout):
                asyncio.run(opened(guest, kind, limit=2))
        assert children() == before
    finally:
        os.kill(guest.pid, signal.SIGCONT)

    async def works_again():
        async with await opened(guest) as stream:
            await ready(stream)

    asyncio.run(works_again())
