"""Installers that start from a network: a kernel with its initrd, as images. Not for: starting them."""

import hashlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

from django.db import transaction
from django.utils.translation import gettext as _

from portal.audit import services as audit
from portal.core import osinfo
from portal.core.errors import Denied
from portal.hosts.images import builders
from portal.hosts.images.values import Wanted, check_wanted
from portal.hosts.models import Image
from portal.hosts.services import check_estate

MIB = 1 << 20
#: Bytes of memory and disk that an installer is given at least where nothing is known of its system.
LEAST_MEMORY, LEAST_DISK = 1024 * MIB, 2048 * MIB

#: Whom a form proposes to sign in as. Not admin, which Debian's installer keeps for itself.
LOGIN = "debian"


def files(source: str) -> tuple[Path, Path]:
    """Return kernel and initrd of an installer that lies in the folder `source`."""
    return Path(source) / "linux", Path(source) / "initrd.gz"


def digest(source: str) -> str:
    """Return what tells an installer from others (SHA-256 of both files). Raises OSError."""
    found = hashlib.sha256()
    for path in files(source):
        with path.open("rb") as file:
            while part := file.read(MIB):
                found.update(part)
    return found.hexdigest()


def _check(name: str, title: str, version: str, os: str) -> None:
    """Raise Denied for what is no name, title, version or system of an image."""
    kind = Image.Kind.NETBOOT.value
    check_wanted(Wanted(kind=kind, name=name, title=title, version=version, os=os, login_user=LOGIN))


def _locked(sha256: str, name: str) -> Image | None:
    """Return the installer that has this content, locked. Raises Denied when it is called otherwise."""
    image = Image.objects.select_for_update().filter(sha256=sha256).first()
    if image is not None and image.name != name:
        # Its volumes on hosts are called by it, and would not be found again.
        told = {"image": image.label, "name": image.name}
        raise Denied(_("This is %(image)s, which is called %(name)s. Keep that name.") % told, field="name")
    return image


def _kept(image: Image | None) -> dict[str, Any]:
    fields = ("title", "version", "os", "login_user", "min_memory", "virtual_size", "source")
    return {field: getattr(image, field) for field in fields} if image is not None else {}


def add_installer(
    *,
    actor: Any,
    source: str,
    name: str,
    title: str,
    version: str,
    os: str = "",
    typed: Collection[str] = ("title", "version", "os"),
) -> Image:
    """Make the installer in the folder `source` known. It stays there: each machine's start reads it.

    What people said of it on its page stays, but for what was `typed` here.
    Idempotent by content; the name stays as it was made. Raises Denied, also for a folder that holds none.
    """
    check_estate(actor, "administer", _("add installers"))
    _check(name, title, version, os)
    # A worker starts elsewhere than whoever says this.
    source = str(Path(source).resolve())
    try:
        found = digest(source)
        size = sum(path.stat().st_size for path in files(source))
    except OSError as error:
        told = {"folder": source, "problem": error.strerror}
        raise Denied(
            _("%(folder)s must hold an installer's linux and initrd.gz: %(problem)s.") % told
        ) from error
    known = osinfo.knowledge(os) if os else None
    with transaction.atomic():
        before = _kept(_locked(found, name))
        image, made = builders.make_known(
            found,
            {
                "kind": Image.Kind.NETBOOT,
                "name": name,
                "title": title,
                "version": version,
                "os": os,
                "format": "raw",
                "size": size,
                "virtual_size": (known and known.least.disk) or LEAST_DISK,
                "min_memory": (known and known.least.memory) or LEAST_MEMORY,
                "login_user": LOGIN,
                "cloud_init": False,
                "device_models": ["paravirtual", "emulated"],
                "source": source,
            },
            typed,
        )
        Image.objects.filter(source=source).exclude(pk=image.pk).update(source="")
        if made:
            after = {"sha256": found, "title": title}
            audit.record(actor=actor, verb="installer.added", target=image, after=after)
        elif (now := _kept(image)) != before:
            audit.record(actor=actor, verb="installer.changed", target=image, before=before, after=now)
    return image
