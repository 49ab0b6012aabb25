"""Consoles of guests on a real further host, by the portal's own SSH."""

import asyncio
import subprocess
import uuid

import pytest

from portal.drivers import errors, ssh
from portal.drivers.console import ConsoleKind, EndReason, open_console
from portal.drivers.libvirt.kernel import kernel_facts
from portal.drivers.registry import driver_for
from portal.drivers.types import Accelerator, DiskSpec, DomainSpec, KernelFacts
from tests.drivers.test_console import LIMIT, MIB, read_to_end, read_until
from tests.drivers.test_console_live import BOOT_SECTOR

pytestmark = pytest.mark.live


@pytest.fixture
def guest(second_host):
    """A guest that echoes its serial line, running on the host."""
    disk = second_host.folder / "disk.img"
    disk.write_bytes(BOOT_SECTOR.ljust(510, b"\0") + b"\x55\xaa" + bytes(MIB - 512))
    spec = DomainSpec("gttest-remote", str(uuid.uuid4()), 1, 32 * MIB,
                      disks=(DiskSpec(str(disk), format="raw"),), accelerator=Accelerator.EMULATION)
    driver = driver_for(second_host.local_uri)
    driver.define(spec)
    driver.start(spec.uuid)
    driver.close()
    return spec.uuid


@pytest.fixture
def uri(second_host, tmp_path):
    """What to connect by as root or another user."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True)
    host_key = ssh.fetch_host_key(ssh.SshAddress("root", second_host.address))

    def connect(user="root"):
        second_host.authorize("restrict,port-forwarding " + (tmp_path / "key.pub").read_text(), user)
        private = (tmp_path / "key").read_text()
        return ssh.prepare(tmp_path / "ssh", user, second_host.uri(user), private, host_key)

    return connect


def ssh_processes(uri):
    """Return the ssh processes that speak for `uri`."""
    folder = str(ssh.command(uri)[2])
    told = subprocess.run(["ps", "axo", "pid,args"], capture_output=True, text=True).stdout
    found = [line for line in told.splitlines() if " ssh -F config" in line]
    return [line for line in found if ssh.SshAddress.of(uri).host in line or folder in line]


def test_a_serial_line_and_a_screen_at_once_as_root(guest, uri):
    """Red when VncConsole refuses what is not local, or the guest's XML has no socket."""

    async def scenario():
        async with (
            await open_console(uri(), guest, ConsoleKind.SERIAL, timeout=LIMIT) as serial,
            await open_console(uri(), guest, ConsoleKind.VNC, timeout=LIMIT) as screen,
        ):
            await serial.write(b"echo me")
            await read_until(serial, b"echo me")
            version = await read_until(screen, b"RFB 003.008\n")
            assert version.startswith(b"RFB")
            await screen.write(b"RFB 003.008\n")
            assert (await screen.read())[:2] == b"\x01\x01"  # one kind of sign-in: none
            await screen.write(b"\x01")
            assert await screen.read() == bytes(4)
            await screen.write(b"\x01")
            size = await screen.read()
            assert int.from_bytes(size[0:2], "big") >= 640
            await serial.write(b"Q")
            await read_to_end(serial)
            await read_to_end(screen)
        return serial.end.reason, screen.end.reason

    assert asyncio.run(scenario()) == (EndReason.OFF, EndReason.OFF)
    assert ssh_processes(uri()) == []
    assert not list(ssh.command(uri())[2].glob("screen-*"))


def test_a_user_who_is_not_in_qemus_group_is_told_so(guest, uri, second_host):
    """Red when the first byte is not awaited: then the screen opens, and ends at once without a word."""
    with pytest.raises(errors.ScreenRefused):
        asyncio.run(open_console(uri("gate"), guest, ConsoleKind.VNC, timeout=LIMIT))

    async def serial():
        async with await open_console(uri("gate"), guest, ConsoleKind.SERIAL, timeout=LIMIT) as line:
            await line.write(b"x")
            await read_until(line, b"x")

    asyncio.run(serial())
    second_host.add_to_group("gate", "libvirt-qemu")

    async def screen():
        async with await open_console(uri("gate"), guest, ConsoleKind.VNC, timeout=LIMIT) as shown:
            await read_until(shown, b"RFB")

    asyncio.run(screen())


def test_the_kernel_of_a_further_host_is_read_by_sftp(uri, second_host):
    """Red when the files are read on this machine, or one that is not there ends the others."""
    second_host.run("sysctl", "-qw", "net.ipv4.ip_forward=0")
    driver = driver_for(uri("gate"))
    facts = driver.readiness().kernel
    driver.close()
    assert facts.ip_forward is False and facts.cgroup_version in {1, 2}
    assert {"cpu", "memory"} <= set(facts.cgroup_controllers)
    second_host.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    assert kernel_facts(uri("gate")).ip_forward is True
    second_host.forbid("gate")
    assert kernel_facts(uri("stranger").replace("stranger@", "gate@")) == KernelFacts()


def test_a_cut_cable_ends_both_consoles(guest, uri, second_host):
    """Red when ssh is not told to look whether the other side lives."""

    async def scenario():
        async with (
            await open_console(uri(), guest, ConsoleKind.SERIAL, timeout=LIMIT) as serial,
            await open_console(uri(), guest, ConsoleKind.VNC, timeout=LIMIT) as screen,
        ):
            await read_until(screen, b"RFB")
            second_host.unplug()
            async with asyncio.timeout(20):
                await read_to_end(serial)
                await read_to_end(screen)
        return serial.end.reason, screen.end.reason

    assert asyncio.run(scenario()) == (EndReason.HOST_LOST, EndReason.HOST_LOST)
