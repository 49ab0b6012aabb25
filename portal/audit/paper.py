"""Have a report laid out as PDF by a process of its own. Not for: what stands in it; `layout` does the work.

WeasyPrint needs about 10 ms of processor time for an entry and hardly lets go of the interpreter: in the web
process it would slow every page. The child is killed when it takes too long, and its memory goes with it;
only the child imports WeasyPrint, which takes half a second.
"""

import subprocess
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: Seconds for the longest report on a busy machine.
LIMIT = 120.0
#: Reports laid out at a time; each is a busy process.
AT_ONCE = 2
_room = threading.BoundedSemaphore(AT_ONCE)


class Busy(Exception):
    """As many reports as this process lays out at a time are being laid out."""


class TooLong(Exception):
    """The report was not laid out in time."""


def pdf_of(html: str) -> bytes:
    """Return the report on A4, made in a child. Raises Busy and TooLong."""
    if not _room.acquire(blocking=False):
        raise Busy
    try:
        done = subprocess.run(  # noqa: S603 (a list, our own interpreter, no shell)
            [sys.executable, "-m", "portal.audit.layout"],
            input=html.encode(),
            capture_output=True,
            timeout=LIMIT,
            check=True,
            cwd=ROOT,
        )
    except subprocess.TimeoutExpired as error:
        raise TooLong from error
    finally:
        _room.release()
    return done.stdout
