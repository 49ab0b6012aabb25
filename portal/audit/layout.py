"""Lay out a report as PDF: the process that `paper` starts. Not for: the web process; knows no Django."""

import os
import sys
from pathlib import Path
from typing import Any

from weasyprint import CSS, HTML, urls

FOLDER = Path(__file__).resolve().parents[2] / "static"
SCHEME = "static:"


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


if __name__ == "__main__":
    os.nice(5)  # pages go first
    sys.stdout.buffer.write(lay_out(sys.stdin.buffer.read().decode()))
