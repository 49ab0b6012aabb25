"""Pages looked at by axe-core, in both themes, wide and narrow.

GATEHOUSE_SCREENSHOTS=FOLDER keeps a picture of each page by role, theme and width.
"""

import os
from pathlib import Path

import pytest

from tests.e2e import axe

pytestmark = pytest.mark.live
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 360, "height": 780}
#: Milliseconds for a page to take its new width and colours.
SETTLE = 250
TOO_WIDE = """() => {
  const page = document.documentElement, limit = page.clientWidth;
  if (page.scrollWidth <= limit) return "";
  const out = [...document.querySelectorAll("main *")].find(
    (at) => at.getBoundingClientRect().right > limit + 1 && !at.closest(".table-responsive"),
  );
  return `${page.scrollWidth} pixels, ${out?.outerHTML.slice(0, 100)}`;
}"""


def views(page):
    """Yield what a page is looked at as: a name, and the rules that it may break so and not otherwise."""
    for scheme, rules in (("light", None), ("dark", ["color-contrast"])):
        for width, size in (("wide", WIDE), ("narrow", NARROW)):
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            page.set_viewport_size(size)
            page.wait_for_timeout(SETTLE)
            yield f"{scheme}-{width}", rules


def keep_picture(page, *names: str) -> None:
    """Keep a picture of the whole page where somebody asked for pictures."""
    if folder := os.environ.get("GATEHOUSE_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=Path(folder) / f"{'-'.join(names).replace(':', '.')}.png", full_page=True)


def look_at(page, role: str, name: str) -> list[str]:
    """Return what is wrong with the page as it is now, in both themes, wide and narrow."""
    found = []
    for look, rules in views(page):
        keep_picture(page, role, name, look)
        found += [f"{name} as {role}, {look}: {text}" for text in axe.complaints(page, rules)]
        if wide := page.evaluate(TOO_WIDE):
            found.append(f"{name} as {role}, {look}: wider than the window: {wide}")
    page.set_viewport_size(WIDE)
    return found


def test_no_page_for_strangers_is_hard_to_use(portal, browser):
    """Untried: when the sign-in form loses a label."""
    context = browser.new_context()
    axe.put_into(context)
    page, found = context.new_page(), []
    for path in ("/accounts/login/", "/accounts/password/reset/", "/accounts/inactive/", "/nowhere/"):
        page.goto(portal.url + path)
        found += look_at(page, "anonymous", path.strip("/").replace("/", "."))
    context.close()
    assert not found, "\n".join(found)
