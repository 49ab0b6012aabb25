"""Run a program on a stranger's file so that the file can do no harm. Not for: what the program finds.

The program may read that file (and the libraries it is made of), write at most one other, use neither network
nor other processes, and has limits of time, memory and length. Where the kernel does not give that
(Landlock, since Linux 5.13), nothing is run.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, cast

from portal.drivers import sandbox_child
from portal.drivers.errors import DriverError

MIB = 1 << 20
#: Bytes of what a program may say on its standard output, and of its complaints that are kept, the last ones.
MOST_SAID, MOST_KEPT = MIB, 4096
MEMORY = 2048 * MIB
#: Seconds between two looks at whether a program is to go on.
LOOK_EVERY = 1.0
_PERCENT = re.compile(rb"\((\d{1,3})(?:\.\d+)?/100%\)")
#: What a program says that met the limit of its files' length.
TOO_LONG = "File too large"
#: What a program says that got no memory (its language is C's).
_NO_MEMORY = "Cannot allocate memory"


class SandboxMissing(DriverError):
    """This machine cannot confine a program, or does not have it."""

    code = "sandbox_missing"


class ProgramFailed(DriverError):
    """The program ended with an error of its own; `raw` is what it said, `status` the one it ended with."""

    code = "program_failed"
    status = 1


class ProgramCut(DriverError):
    """The program was cut off: by want of time or memory, or by a signal. The file may be fine."""

    code = "program_cut"


def run(
    argv: Sequence[str],
    *,
    reads: Sequence[str],
    writes: Sequence[str] = (),
    seconds: float = 30.0,
    file_bytes: int = 0,
    check: Callable[[], None] = lambda: None,
    progress: Callable[[int], None] = lambda percent: None,
) -> bytes:
    """Return what the program says on its standard output.

    `reads` and `writes` are files that are there; `seconds` limits its time and its processors'; it makes
    no file longer than `file_bytes`. It dies with the calling thread, and when `check`, which is called
    each second, raises; `progress` is told then of the percent that it last said, as QEMU's `-p` does. Raises
    SandboxMissing, ProgramFailed, ProgramCut.
    """
    program = shutil.which(argv[0], path="/usr/bin:/bin")
    if program is None:
        raise SandboxMissing(f"{argv[0]} is not installed")
    longest = max(file_bytes, MOST_SAID)
    limits = {"CPU": int(seconds) + 1, "AS": MEMORY, "FSIZE": longest, "NOFILE": 64, "CORE": 0}
    wanted = {
        "argv": [os.path.realpath(program), *argv[1:]],
        "reads": [os.path.realpath(path) for path in reads],
        "writes": [os.path.realpath(path) for path in writes],
        "limits": limits,
        "parent": os.getpid(),
    }
    child = [sys.executable, "-I", "-S", str(Path(sandbox_child.__file__).resolve()), json.dumps(wanted)]
    # A file, not a pipe: nothing it says can hold it up or fill this process's memory.
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(  # noqa: S603 a list, of the portal's own making
            child,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.PIPE,
            cwd="/",
            env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"},
            start_new_session=True,
        )
        complaints = _Complaints(process)

        def look() -> None:
            check()
            if (percent := _percent(said)) is not None:
                progress(percent)

        try:
            code = _end_of(process, seconds, look)
        except subprocess.TimeoutExpired as late:
            raise ProgramCut(f"{argv[0]} did not end within {seconds:.0f} s") from late
        finally:
            if process.returncode is None:
                process.kill()
                process.wait()
            complaint = complaints.end()
        if code in {sandbox_child.REFUSED, -signal.SIGSYS}:
            raise SandboxMissing(complaint or "the kernel refused a call")
        if code == -signal.SIGXFSZ:
            raise ProgramFailed(TOO_LONG)
        if code < 0:
            raise ProgramCut(f"{argv[0]} was ended by {_signal(-code)}")
        if code and _NO_MEMORY in complaint:
            raise ProgramCut(f"{argv[0]} got no memory")
        if code:
            failed = ProgramFailed(complaint or f"{argv[0]} ended with {code}")
            failed.status = code
            raise failed
        said.seek(0)
        return said.read(MOST_SAID)


def _percent(said: IO[bytes]) -> int | None:
    # Without moving the place at which the program writes.
    last = os.pread(said.fileno(), 64, max(0, os.fstat(said.fileno()).st_size - 64))
    found = _PERCENT.findall(last)
    return int(found[-1]) if found else None


class _Complaints:
    """The last of what a program complains of: some complain of each thing in a file, without end."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._pipe, self._last = cast(IO[bytes], process.stderr), b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with self._pipe:
            while piece := os.read(self._pipe.fileno(), 1 << 16):
                self._last = (self._last + piece)[-MOST_KEPT:]

    def end(self) -> str:
        """Return them once the program has ended."""
        self._reader.join(LOOK_EVERY)
        return self._last.decode(errors="replace").strip()[-500:]


def _end_of(process: "subprocess.Popen[bytes]", seconds: float, check: Callable[[], None]) -> int:
    """Wait for the program; return its code. Raises TimeoutExpired, and what `check` raises."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > LOOK_EVERY:
        with suppress(subprocess.TimeoutExpired):
            return process.wait(LOOK_EVERY)
        check()
    return process.wait(max(0.0, left))


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"the signal {number}"
