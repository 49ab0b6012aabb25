"""Lay out a report as PDF, in a process of its own. Not for: what stands in it; knows no Django.

WeasyPrint needs about 10 ms of processor time for an entry and hardly lets go of the interpreter: in the web
process it would slow every page. The child is killed when it takes too long, and its memory goes with it.
"""

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from weasyprint import CSS, HTML, urls

FOLDER = Path(__file__).resolve().parents[2] / "static"
SCHEME = "static:"
#: Seconds for the longest report on a busy machine.
LIMIT = 120.0
#: Reports laid out at a time; each is a busy process.
AT_ONCE = 2
_room = threading.BoundedSemaphore(AT_ONCE)


class Busy(Exception):
    """As many reports as this process lays out at a time are being laid out."""


class TooLong(Exception):
    """The report was not laid out in time."""


class OwnFiles(urls.URLFetcher):  # type: ignore[misc]
    """Gives the report its own static files and nothing else: no address that a name brought with it."""

    def fetch(self, url: str, headers: Any = None) -> Any:
        path = (FOLDER / url.removeprefix(SCHEME)).resolve()
        if not url.startswith(SCHEME) or not path.is_relative_to(FOLDER.resolve()):
            raise ValueError(f"The report may not read {url!r}.")
        return urls.URLFetcherResponse(url, path.read_bytes(), {"Content-Type": "image/svg+xml"})


def lay_out(html: str, **options: Any) -> bytes:
    """Return the report on A4, made in this process; `options` go to WeasyPrint."""
    fetcher = OwnFiles()
    style = CSS(filename=FOLDER / "css" / "report.css", url_fetcher=fetcher)
    page = HTML(string=html, base_url=SCHEME, url_fetcher=fetcher)
    pdf: bytes = page.write_pdf(stylesheets=[style], **options)
    return pdf


def pdf_of(html: str) -> bytes:
    """Return the report on A4, made in a child. Raises Busy and TooLong."""
    if not _room.acquire(blocking=False):
        raise Busy
    try:
        done = subprocess.run(  # noqa: S603 (a list, our own interpreter, no shell)
            [sys.executable, "-m", "portal.audit.paper"],
            input=html.encode(),
            capture_output=True,
            timeout=LIMIT,
            check=True,
            cwd=FOLDER.parent,
        )
    except subprocess.TimeoutExpired as error:
        raise TooLong from error
    finally:
        _room.release()
    return done.stdout


if __name__ == "__main__":
    os.nice(5)  # pages go first
    sys.stdout.buffer.write(lay_out(sys.stdin.buffer.read().decode()))
