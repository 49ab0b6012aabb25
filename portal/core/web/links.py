"""Where people reach the portal, for what leaves it. Not for: links within pages, which are paths."""

from django.conf import settings


def public_link(path: str) -> str:
    """Return `path` as an absolute link by PUBLIC_URL.

    Never by the Host of a request: one browser came by that name, or a stranger wrote it there.
    """
    return f"{settings.PUBLIC_URL}{path}"
