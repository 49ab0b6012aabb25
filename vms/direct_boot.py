"""What an installer can be answered by, and which start without its CD's boot loader that takes.

A loader on a CD starts the kernel with its own words. An installer that takes its answers from the kernel's
words or from behind its initrd is started by the host from both, as they lie on the CD. Not for: the steps.
"""

from django.utils.translation import gettext as _

from portal.core import osinfo
from portal.core.osinfo import Knowledge, Medium
from portal.hosts.models import Image
from vms.unattended import ASKS, Format

#: The distribution whose live CDs have an installer that reads an autoinstall.
_UBUNTU = "ubuntu"


def formats(image: Image) -> tuple[Format, ...]:
    """Return what the installer in `image` can be answered by."""
    if image.kind == Image.Kind.NETBOOT:
        return (Format.PRESEED,)
    if image.kind != Image.Kind.ISO:
        return ()
    by_cd = (Format.KICKSTART, Format.AUTOINSTALL)
    return (Format.PRESEED, *by_cd) if files(image, Format.PRESEED) else by_cd


def files(image: Image, form: str) -> dict[str, str] | None:
    """Return `kernel` and `initrd` on a CD that its installer is started from with answers of this form.

    None where the CD's own loader starts it.
    """
    known = _known(image)
    if image.kind != Image.Kind.ISO or known is None or not image.source:
        return None
    for medium in known.media:
        if [medium.kernel, medium.initrd] in image.boot_files and _reads(known, medium, form):
            return {"kernel": medium.kernel, "initrd": medium.initrd}
    return None


def _known(image: Image) -> Knowledge | None:
    return osinfo.knowledge(image.os) if image.os else None


def _reads(known: Knowledge, medium: Medium, form: str) -> bool:
    """Say whether the installer on a CD takes answers of this form, and not from another CD alone."""
    if form == Format.PRESEED:
        return known.reads_preseed and not medium.live
    return form == Format.AUTOINSTALL and known.distribution == _UBUNTU and medium.live


def remark(image: Image) -> str:
    """Return what of its answers does not work with a CD, '' for nothing that anybody would expect."""
    if image.kind != Image.Kind.ISO:
        return ""
    known = _known(image)
    if known is None:
        return _("Nobody said which system is on the CD, so no preseed is offered.") + f" {ASKS}"
    if known.distribution == _UBUNTU and not files(image, Format.AUTOINSTALL):
        return str(ASKS)
    if known.distribution != _UBUNTU and known.reads_preseed and not files(image, Format.PRESEED):
        return _("No preseed is offered: the CD has no installer's kernel where osinfo-db tells of one.")
    return ""
