"""Consoles: errors by name, a clear end, bounded memory, no child left behind; real guests are next door."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from portal.drivers import errors
from portal.drivers.console import ConsoleKind, ConsoleStream, EndReason, open_console

MIB = 1024 * 1024
MISSING = "00000000-0000-4000-8000-000000000000"
LIMIT = 30  # seconds; what is awaited takes far less, and a hang must not last


def wait_for(condition, explain=str):
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end, explain()
        time.sleep(0.02)


async def read_until(stream: ConsoleStream, mark: bytes) -> bytes:
    """Return all bytes up to where `mark` was seen."""
    seen = b""
    async with asyncio.timeout(LIMIT):
        while mark not in seen:
            data = await stream.read()
            assert data, stream.end
            seen += data
    return seen


async def ready(stream: ConsoleStream) -> None:
    """Wait until the guest echoes; what is typed before it booted may be lost."""
    heard = asyncio.create_task(read_until(stream, b"?"))
    while not heard.done():
        await stream.write(b"?")
        await asyncio.wait([heard], timeout=0.2)
    await heard
    await stream.write(b"#")
    await read_until(stream, b"#")


async def read_to_end(stream: ConsoleStream) -> EndReason:
    async with asyncio.timeout(LIMIT):
        while await stream.read():
            pass
    assert stream.end is not None
    return stream.end.reason


def _all_children() -> set[int]:
    lists = Path("/proc/self/task").glob("*/children")
    return {int(pid) for path in lists for pid in path.read_text().split()}


#: Children that tests of other modules left in this process, such as an idle pool of drivers.
OTHERS: set[int] = set()


@pytest.fixture(autouse=True)
def others():
    OTHERS.clear()
    OTHERS.update(_all_children())


def children() -> set[int]:
    """Return the processes, also dead ones, whose parent is this process since the test began."""
    return _all_children() - OTHERS


def peak_memory(stream: ConsoleStream) -> int:
    """Return the most memory the console's child ever held, in bytes."""
    text = Path(f"/proc/{stream._process.pid}/status").read_text()
    return int(text.split("VmHWM:")[1].split()[0]) * 1024


def fake(wish="", kind=ConsoleKind.SERIAL, limit=LIMIT):
    return open_console(f"fake://host/?console={wish}", MISSING, kind, timeout=limit)


def test_bytes_go_both_ways_and_the_guest_may_end_it():
    """Red when the child sends no END frame: the reason is then `failed`."""

    async def scenario():
        async with await fake() as stream:
            await stream.write(b"\x00hello\xff")
            assert await read_until(stream, b"\xff") == b"\x00hello\xff"
            await stream.write(b"\x04")
            assert await read_to_end(stream) is EndReason.OFF
            assert await stream.read() == b""
            with pytest.raises(errors.InvalidState):
                await stream.write(b"x")

    asyncio.run(scenario())
    assert children() == set()


def test_a_small_read_takes_no_more_than_it_asked_for():
    async def scenario():
        async with await fake(kind=ConsoleKind.VNC) as stream:
            parts = [await stream.read(5) for _ in range(3)]
            assert parts == [b"RFB 0", b"03.00", b"8\n"]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("wish", "error"),
    [
        ("off", errors.InvalidState),
        ("missing", errors.DomainNotFound),
        ("unreachable", errors.HostUnreachable),
    ],
)
def test_what_keeps_a_console_shut_is_named_and_leaves_no_child(wish, error):
    """Red when open_console does not close the stream of a failed open."""
    with pytest.raises(error) as caught:
        asyncio.run(fake(wish))
    assert caught.value.raw == f"the fake was asked for {wish}"
    assert caught.value.retryable is error.retryable
    assert children() == set()


@pytest.mark.slow
def test_a_host_that_hangs_costs_a_bounded_time_and_leaves_no_child():
    """Never ends when confirm is awaited without a limit."""
    with pytest.raises(errors.CallTimeout):
        asyncio.run(fake("hang", limit=1))
    assert children() == set()


def test_a_cancelled_open_leaves_no_child():
    """Red when only TimeoutError closes the stream."""

    async def scenario():
        opening = asyncio.create_task(fake("hang"))
        while not children():
            await asyncio.sleep(0.02)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening

    asyncio.run(scenario())
    assert children() == set()


def test_values_no_host_may_see_start_no_child():
    with pytest.raises(errors.InvalidSpec):
        asyncio.run(open_console("fake://host", "-x", ConsoleKind.SERIAL, timeout=LIMIT))
    assert children() == set()


def test_closing_ends_a_waiting_read_and_may_be_repeated():
    """Red when close_as kills again what it killed before: the group is gone."""

    async def scenario():
        stream = await fake()
        waiting = asyncio.create_task(stream.read())
        await asyncio.sleep(0)
        await asyncio.gather(stream.close(), stream.close())
        await stream.close()
        async with asyncio.timeout(LIMIT):
            assert await waiting == b""
        assert stream.end.reason is EndReason.CLOSED

    asyncio.run(scenario())
    assert children() == set()


def test_the_newest_viewer_of_a_serial_line_wins_and_screens_are_shared():
    """Red when open_console does not call _replace, or calls it for screens too."""

    async def scenario():
        async with await fake() as first, await fake() as second:
            assert await read_to_end(first) is EndReason.REPLACED
            await ready(second)
        async with await fake(kind=ConsoleKind.VNC) as one, await fake(kind=ConsoleKind.VNC) as other:
            for screen in (one, other):
                await read_until(screen, b"\n")
                await ready(screen)

    asyncio.run(scenario())
    assert children() == set()


def test_a_child_that_dies_is_a_failed_console():
    async def scenario():
        async with await fake() as stream:
            os.kill(stream._process.pid, signal.SIGKILL)
            assert await read_to_end(stream) is EndReason.FAILED

    asyncio.run(scenario())
    assert children() == set()


@pytest.mark.slow
def test_a_slow_reader_slows_the_writer_and_nothing_is_lost():
    """Red when Shovel.guest_to_parent collects the chunks in a list and a thread sends them later."""
    block = bytes(range(4)) * 16384

    async def scenario():
        async with await fake() as stream:
            await stream.write(b"\x00")
            await read_until(stream, b"\x00")
            before = peak_memory(stream)
            typing = asyncio.create_task(type_flood(stream))
            done, _waiting = await asyncio.wait([typing], timeout=2)
            assert not done
            total = 0
            async with asyncio.timeout(LIMIT):
                while total < 64 * MIB:
                    data = await stream.read()
                    assert data[0] == total % 4
                    total += len(data)
            await typing
            assert peak_memory(stream) - before < 8 * MIB

    async def type_flood(stream):
        for _ in range(64 * MIB // len(block)):
            await stream.write(block)

    asyncio.run(scenario())


@pytest.mark.slow
@pytest.mark.parametrize("wish", ["", "hang"])
def test_the_child_goes_with_its_parent(wish):
    """Red when main starts no _watch_parent; `hang` stands for a call that never returns."""
    program = (
        "import asyncio\n"
        "from portal.drivers.console import *\n"
        "async def main():\n"
        f"    uri, uuid = 'fake://host/?console={wish}', '{MISSING}'\n"
        "    stream = await open_console(uri, uuid, ConsoleKind.SERIAL, timeout=99)\n"
        "    await asyncio.sleep(99)\n"
        "asyncio.run(main())\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program])
    listing = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    try:
        wait_for(lambda: listing.read_text())
        child = Path(f"/proc/{listing.read_text().strip()}")
        wait_for(lambda: b"console_child" in (child / "cmdline").read_bytes())
        time.sleep(1)  # let it come to rest
    finally:
        parent.kill()
        parent.wait()
    wait_for(lambda: not child.exists() or ") Z " in (child / "stat").read_text())


def test_a_remote_host_that_leads_nowhere_says_so():
    uri = "qemu+ssh://gttest.invalid/system"
    with pytest.raises(errors.NameUnknown, match="Could not resolve hostname"):
        asyncio.run(open_console(uri, MISSING, ConsoleKind.VNC, timeout=LIMIT))
