"""Which host addresses and folders the portal accepts. Not for: connecting to them."""

import posixpath
import re

from django.utils.translation import gettext as _

from portal.core.errors import Denied

#: A libvirt URI's query may name a program to run (`command`, `netcat`, `proxy`), so there is none at all.
_URI = re.compile(
    r"(qemu:///(system|session)|xen:///system"
    r"|(qemu|xen)\+ssh://([a-z_][a-z0-9_-]{0,31}@)?[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?(:[0-9]{1,5})?/system"
    r"|(fake|test):///[a-z0-9-]{0,32})"
)
_JUMP = re.compile(
    r"([a-z_][a-z0-9_-]{0,31}@)?([A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[[0-9a-fA-F:]{2,45}\])(:[0-9]{1,5})?"
)
_PATH = re.compile(r"(/[A-Za-z0-9_][A-Za-z0-9._-]*)+")


def check_uri(uri: str) -> str:
    """Return `uri` if it is one that the portal connects to. Raises Denied."""
    if not _URI.fullmatch(uri):
        raise Denied(
            _(
                "Use qemu:///system for this machine (qemu:///session without root), or "
                "qemu+ssh://user@host/system for another one, with xen in place of qemu for a host of Xen; "
                "nothing may follow."
            )
        )
    return uri


def check_jump(jump: str) -> str:
    """Return `jump` if ssh takes it as a place to jump from; '' is one too. Raises Denied."""
    if jump and not _JUMP.fullmatch(jump):
        raise Denied(_("Name the host as ssh does: [user@]name[:port], such as rack-1.example.org."))
    return jump


def check_pool_path(path: str) -> str:
    """Return `path` if it is a plain absolute folder below the root. Raises Denied."""
    if not _PATH.fullmatch(path) or posixpath.normpath(path) != path or len(path) > 255:
        raise Denied(
            _(
                "Name a folder by its full path, such as /var/lib/gatehouse; letters, digits, . _ - and / "
                "only."
            )
        )
    return path
