"""axe-core in pages: what makes them hard to use for people with disabilities. Not for: how pages look."""

import subprocess
from functools import cache
from pathlib import Path
from typing import Any

from playwright.sync_api import BrowserContext, Page

FOLDER = Path(__file__).parent
SCRIPT = FOLDER / "node_modules/axe-core/axe.min.js"
#: WCAG 2.2 AA and what its authors recommend beside it.
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
GRAVE = {"serious", "critical"}


@cache
def _install() -> None:
    """Install what the lock file pins, unless it is there."""
    want = (FOLDER / "package-lock.json").read_text()
    done = FOLDER / "node_modules/.installed"
    if not SCRIPT.exists() or not done.exists() or done.read_text() != want:
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        subprocess.run(command, cwd=FOLDER, check=True, timeout=120)
        done.write_text(want)


def put_into(context: BrowserContext) -> None:
    """Give axe to every page of `context`; not as a script of the page, which its policy would refuse."""
    _install()
    context.add_init_script(path=SCRIPT)


def complaints(page: Page) -> list[str]:
    """Return what is serious or critical on the page as it is now."""
    only = {"type": "tag", "values": TAGS}
    options: dict[str, Any] = {"runOnly": only, "resultTypes": ["violations"]}
    found = page.evaluate("(options) => axe.run(document, options)", options)
    return [
        f"{violation['id']}: {node['html'][:160]} ({node['failureSummary'].splitlines()[-1].strip()})"
        for violation in found["violations"]
        if violation["impact"] in GRAVE
        for node in violation["nodes"]
    ]
