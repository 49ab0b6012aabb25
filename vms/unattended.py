"""Answers that an installer reads in place of a person's. Not for: keeping templates, or bringing them.

A template is text with `$names` (string.Template; `$$` is a dollar). What is put in for them is checked to
hold nothing that could end a quote, a line or a word in any of the forms, and never comes from free text.
"""

import json
import re
from collections.abc import Mapping, Sequence
from string import Template
from typing import Any

import yaml
from django.db import models
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from vms import cloud


class Format(models.TextChoices):
    """How an installer wants to be answered."""

    PRESEED = "preseed", gettext_lazy("Preseed (Debian)")
    KICKSTART = "kickstart", gettext_lazy("Kickstart (Fedora, Rocky, Alma)")
    AUTOINSTALL = "autoinstall", gettext_lazy("Autoinstall (Ubuntu)")


class Refused(ValueError):
    """A template that cannot be used; the text is a sentence for the person."""


#: What a template can name, with what it is for.
NAMES: Mapping[str, Any] = {
    "hostname": gettext_lazy("the machine's name"),
    "user": gettext_lazy("the login user"),
    "password_hash": gettext_lazy("! (no password: people sign in by their key)"),
    "ssh_keys": gettext_lazy(
        "the keys: lines of sshkey for kickstart, a list for autoinstall; preseed has /authorized_keys"
    ),
    "disk": gettext_lazy("the disk to install to, such as vda"),
}
#: What Ubuntu's installer does with its answers on a CD beside it where the loader on its own CD starts it:
#: `autoinstall` would have to stand on the command line of its kernel.
ASKS = gettext_lazy(
    "Ubuntu's installer asks once, on the machine's screen, before it takes the disk: Continue with "
    "autoinstall? Answer yes; after that it asks nothing."
)
#: Bytes; an installer's own limits are far above.
MOST = 32 * 1024
#: crypt(5) knows no password for it.
LOCKED = "!"
#: What Debian's installer takes for a user, and the accounts and groups of its own that it does not take:
#: with one of these it stops at a question, which nobody is there to answer.
_PRESEED_USER = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_PRESEED_RESERVED = frozenset(
    {
        "root", "daemon", "bin", "sys", "sync", "games", "man", "lp", "mail", "news", "uucp", "proxy",
        "www-data", "backup", "list", "irc", "gnats", "nobody", "adm", "tty", "disk", "kmem", "dialout",
        "fax", "voice", "cdrom", "floppy", "tape", "sudo", "audio", "dip", "operator", "src", "shadow",
        "utmp", "video", "sasl", "plugdev", "staff", "users", "nogroup", "admin", "netplan", "mysql",
        "alias", "qmail", "asterisk", "slurm", "ceph", "bind", "crontab", "dhcp", "dnsmasq", "dovecot",
        "fetchmail", "ftp", "fuse", "gdm", "input", "klog", "kvm", "lpadmin", "messagebus", "netdev",
        "radvd", "render", "saned", "sbuild", "scanner", "slocate", "ssh", "sshd", "ssl-cert", "statd",
        "syslog", "telnetd", "tftpd", "libvirt-qemu"
    }
)
_DISK = re.compile(r"[sv]d[a-z]")
_EXAMPLE_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIO3pRSmoEbnApkTfXeqmr+G9jgvKZmVNfC69Nf1c60Rk"


def check(format: str, text: str) -> None:
    """Raise Refused unless `text` is a template that can be filled in and then is of its format."""
    if len(text.encode()) > MOST:
        raise Refused(_("A template is limited to %(most)d KiB.") % {"most": MOST // 1024})
    template = Template(text)
    if not template.is_valid():
        raise Refused(_("A dollar sign stands before a name that is no name; write $$ for a dollar."))
    if unknown := sorted(set(template.get_identifiers()) - set(NAMES)):
        known = ", ".join(NAMES)
        raise Refused(
            _("Nothing is called %(name)s. There are %(known)s; write $$ for a dollar.")
            % {"name": unknown[0], "known": known}
        )
    rendered = render(format, text, hostname="example", user="example", keys=[_EXAMPLE_KEY], disk="vda")
    if format == Format.AUTOINSTALL:
        _check_autoinstall(rendered)


def _check_autoinstall(rendered: str) -> None:
    try:
        document = yaml.safe_load(rendered)
    except cloud.NO_YAML as error:
        raise Refused(_("Filled in, this is not valid YAML: %(problem)s") % {"problem": error}) from error
    if not rendered.startswith("#cloud-config\n") or not isinstance(document, dict):
        raise Refused(_("An autoinstall template begins with the line #cloud-config and is a mapping."))
    if not isinstance(document.get("autoinstall"), dict):
        raise Refused(_("An autoinstall template has a mapping called autoinstall."))


def render(format: str, text: str, *, hostname: str, user: str, keys: Sequence[str], disk: str) -> str:
    """Return a template filled in. Raises ValueError for a value that could be more than a value."""
    values = {
        "hostname": _match(cloud.HOSTNAME, hostname),
        "user": _match(cloud.LOGIN, user),
        "password_hash": LOCKED,
        "disk": _match(_DISK, disk),
        "ssh_keys": _KEYS[Format(format)](user, bare(keys)),
    }
    return Template(text).substitute(values)


def takes_user(format: str, user: str) -> bool:
    """Tell whether the installers that read `format` make a user of this name without asking again."""
    if format != Format.PRESEED:
        return True
    return bool(_PRESEED_USER.fullmatch(user)) and user not in _PRESEED_RESERVED


def bare(keys: Sequence[str]) -> list[str]:
    """Return keys without their comments, which are free text. Raises ValueError for what is none."""
    return [_match(cloud.SSH_KEY, " ".join(key.split()[:2])) for key in keys]


def _match(pattern: re.Pattern[str], value: str) -> str:
    if not pattern.fullmatch(value):
        raise ValueError(f"{value!r} cannot be put into an installer's answers")
    return value


_KEYS = {
    Format.PRESEED: lambda user, keys: "",
    Format.KICKSTART: lambda user, keys: "\n".join(f'sshkey --username={user} "{key}"' for key in keys),
    Format.AUTOINSTALL: lambda user, keys: json.dumps(keys),
}
