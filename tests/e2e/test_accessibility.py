"""Every page that people can get to by links, looked at by axe-core; and the road without a mouse.

GATEHOUSE_SCREENSHOTS=FOLDER keeps a picture of each page by role, theme and width.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from django.urls import Resolver404, resolve

from tests.e2e import axe, people

pytestmark = pytest.mark.live
ROLES = ("requester", "approver", "operator", "auditor", "admin")
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 360, "height": 780}
LINKS = "() => Array.from(document.querySelectorAll('a[href]'), (link) => link.href)"
#: Pages that are not read but worked with; tests of their own look at them.
APART = {"console:vnc", "console:serial"}
#: Whether a page has taken its new colours and nothing on it moves any more.
SETTLED = """(scheme) => document.documentElement.dataset.bsTheme === scheme
  && document.getAnimations().every((moving) => moving.playState !== "running")"""
TOO_WIDE = """() => {
  const page = document.documentElement, limit = page.clientWidth;
  if (page.scrollWidth <= limit) return "";
  const out = [...document.querySelectorAll("main *")].find(
    (at) => at.getBoundingClientRect().right > limit + 1 && !at.closest(".table-responsive"),
  );
  return `${page.scrollWidth} pixels, ${out?.outerHTML.slice(0, 100)}`;
}"""
FOCUS = """() => {
  const at = document.activeElement, style = getComputedStyle(at);
  return {
    words: (at.getAttribute("aria-label") || at.labels?.[0]?.innerText || at.innerText || "").trim(),
    name: at.getAttribute("name") || "",
    shown: at.matches(":focus-visible")
      && ((style.outlineStyle !== "none" && style.outlineWidth !== "0px") || style.boxShadow !== "none"),
    what: at.outerHTML.slice(0, 120),
  };
}"""


def name_of(address: str) -> str:
    """Return the name of the view behind an address of this portal, '' where there is none."""
    try:
        return resolve(urlsplit(address).path).view_name
    except Resolver404:
        return ""


def pages(page, start: str) -> Iterator[tuple[str, int]]:
    """Go to every page within reach by links, each view once; yield its name and status when it is there."""
    waiting, known = [start], set(APART)
    while waiting:
        address = waiting.pop(0)
        if (name := name_of(address)) in known:
            continue
        known.add(name)
        answer = page.goto(address)
        known.add(name_of(page.url))
        yield name_of(page.url), answer.status
        here = urlsplit(start).netloc
        links = page.evaluate(LINKS)
        waiting += [link for link in links if urlsplit(link).netloc == here and name_of(link)]


def views(page):
    """Yield the name of each look of a page: every theme and every width, and both of both for pictures.

    Colours do not hang on the width, nor does the layout on the theme.
    """
    looks = [("light", "wide"), ("dark", "narrow")]
    if os.environ.get("GATEHOUSE_SCREENSHOTS"):
        looks += [("light", "narrow"), ("dark", "wide")]
    for scheme, width in looks:
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        page.set_viewport_size({"wide": WIDE, "narrow": NARROW}[width])
        page.wait_for_function(SETTLED, arg=scheme)
        yield f"{scheme}-{width}"


def keep_picture(page, *names: str) -> None:
    """Keep a picture of the whole page where somebody asked for pictures."""
    if folder := os.environ.get("GATEHOUSE_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        path = Path(folder) / f"{'-'.join(names).replace(':', '.')}.png"
        # To hide the caret, a style would be put into the page, which its policy refuses.
        page.screenshot(path=path, full_page=True, caret="initial")


def look_at(page, role: str, name: str) -> list[str]:
    """Return what is wrong with the page as it is now, in both themes, and wide and narrow."""
    found = []
    page.wait_for_load_state("networkidle")
    for look in views(page):
        keep_picture(page, role, name, look)
        found += [f"{name} as {role}, {look}: {text}" for text in axe.complaints(page)]
        if wide := page.evaluate(TOO_WIDE):
            found.append(f"{name} as {role}, {look}: wider than the window: {wide}")
    page.set_viewport_size(WIDE)
    return found


@pytest.fixture
def furnished(portal, sign_in, build) -> str:
    """A portal with something to see on most pages; the address of a request that waits."""
    build()
    return people.ask(sign_in("requester"), people.new_name())


def test_no_page_is_hard_to_use(portal, sign_in, furnished):
    """Red when a field loses its label, grey text gets paler, or a table does not scroll by itself."""
    found: list[str] = []
    looked: set[str] = set()
    for role in ROLES:
        page = sign_in(role)
        axe.put_into(page.context)
        for name, status in pages(page, f"{portal.url}/"):
            assert status == 200, f"{name} as {role}: {status}"
            if name not in looked:
                looked.add(name)
                found += look_at(page, role, name)
        page.context.close()
    assert {"vms:list", "vms:detail", "vms:ask", "hosts:detail", "audit:trail", "operations:inbox"} <= looked
    assert not found, "\n".join(found)


def test_no_page_for_strangers_is_hard_to_use(portal, browser):
    """Red when the sign-in form loses a label."""
    context = browser.new_context()
    axe.put_into(context)
    page, found = context.new_page(), []
    for path in ("/accounts/login/", "/accounts/password/reset/", "/accounts/inactive/", "/nowhere/"):
        page.goto(portal.url + path)
        found += look_at(page, "anonymous", path.strip("/").replace("/", "."))
    context.close()
    assert not found, "\n".join(found)


def tab_to(page, words: str) -> None:
    """Press Tab until what is called `words`, or the field of that name, has the focus; it always shows."""
    for _ in range(80):
        page.keyboard.press("Tab")
        at = page.evaluate(FOCUS)
        assert at["shown"], f"the focus does not show on {at['what']}"
        if words in (at["words"], at["name"]):
            return
    raise AssertionError(f"no Tab leads to {words}")


def follow(page, words: str) -> None:
    """Go by keys to where the link called `words` leads; return when the other page is there."""
    tab_to(page, words)
    with page.expect_navigation(wait_until="networkidle"):
        page.keyboard.press("Enter")


def test_the_road_needs_no_mouse(portal, browser):
    """Red when a control is a div, or a style takes the outline away."""
    name = people.new_name()
    context = browser.new_context()
    page = context.new_page()
    _sign_in_by_keys(page, portal, "requester")
    for words in ("Ask for a machine", "Ask for Tiny Linux"):
        follow(page, words)
    for field, value in (("name", name), ("why", "to try it")):
        tab_to(page, field)
        page.keyboard.type(value)
    tab_to(page, "Send the request")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=Awaiting approval")
    context.close()

    context = browser.new_context()
    page = context.new_page()
    _sign_in_by_keys(page, portal, "approver")
    follow(page, f"Create {name}")
    tab_to(page, "Approve")
    page.keyboard.press("Enter")
    people.once(page, "Succeeded", 60)
    context.close()


def _sign_in_by_keys(page, portal, who: str) -> None:
    page.goto(portal.url)
    # The field has the focus when the page opens.
    assert page.evaluate(FOCUS)["name"] == "login"
    page.keyboard.type(who)
    tab_to(page, "password")
    page.keyboard.type(portal.passwords[who])
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-signed-in]")
