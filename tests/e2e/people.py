"""What people do in the browser, in their words. Not for: looking whether it worked."""

import re
import secrets
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page

#: What the browser's console says when a test cuts the connection on purpose.
CUT = re.compile(r"WebSocket connection to|Failed to load resource|ERR_")
#: What htmx says of a request (the what-if, say) that ends because the person went on to another page.
LEFT = re.compile(r"htmx:(afterRequest|sendError|sendAbort)\b")


class SignIn:
    """Signs people in, and hears what their pages complain of: a script error, a blocked resource."""

    def __init__(self, portal: Any, browser: Browser) -> None:
        self._portal, self._browser = portal, browser
        self._contexts: list[BrowserContext] = []
        self.complaints: list[str] = []
        #: Set where a test cuts the connection: what the browser says about that is no complaint.
        self.cut = False

    def __call__(self, who: str, **options: Any) -> Page:
        """Return the first page of `who`; `options` go to the browser's context."""
        context = self._browser.new_context(**options)
        self._contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: message.type == "error" and self._hear(message.text))
        page.on("pageerror", lambda error: self._hear(str(error)))
        page.goto(self._portal.url)
        page.fill("[name=login]", who)
        page.fill("[name=password]", self._portal.passwords[who])
        page.keyboard.press("Enter")
        page.wait_for_selector("[data-signed-in]")
        return page

    def _hear(self, text: str) -> None:
        if not (LEFT.match(text) or (self.cut and CUT.search(text))):
            self.complaints.append(text)

    def close(self) -> None:
        """Close every page."""
        for context in self._contexts:
            context.close()


def new_name() -> str:
    """Return a name for a machine that no other test has."""
    return f"gttest-{secrets.token_hex(3)}"


def ask(page: Page, name: str, *, flavour: str = "", **fields: str) -> str:
    """Ask for a tiny machine and return the address of the request's page."""
    page.goto("/".join(page.url.split("/", 3)[:3]) + "/machines/catalogue/")
    page.get_by_role("link", name="Ask for Tiny Linux").click()
    for field, value in {"name": name, "why": "to try it", **fields}.items():
        page.fill(f"[name={field}]", value)
    if flavour:
        option = page.locator("[name=flavour] option", has_text=flavour)
        page.locator("[name=flavour]").select_option(option.get_attribute("value"))
    page.get_by_role("button", name="Send the request").click()
    page.wait_for_selector("text=Awaiting approval")
    return page.url


def approve(page: Page, address: str) -> None:
    """Approve the request at `address`."""
    page.goto(address)
    button = page.get_by_role("button", name="Approve", exact=True)
    button.click()
    # The page is loaded anew once it is decided.
    button.wait_for(state="detached")
    page.wait_for_selector("#messages .alert")


def once(page: Page, text: str, limit: float) -> None:
    """Wait until the page says `text` by itself, at most `limit` seconds."""
    page.get_by_text(text).first.wait_for(timeout=limit * 1000)




def press(page: Page, button: str) -> None:
    """Press a button after which the server sends the browser on, and wait for the page it is sent to.

    What is pushed meanwhile may show on the old page that it was done; who went on then would be in its way.
    """
    with page.expect_navigation():
        page.get_by_role("button", name=button, exact=True).click()


def is_off(page: Page, limit: float) -> None:
    """Wait until the page says that a machine is off, at most `limit` seconds; a button says `Force off`."""
    page.get_by_text("Off", exact=True).first.wait_for(timeout=limit * 1000)
