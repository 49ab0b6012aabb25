"""What a person says of an image that they hand in, and what of that is taken. Not for: the file itself."""

import re
from dataclasses import asdict, dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from django.utils.translation import gettext as _

from portal.accounts.models import Project
from portal.core.errors import Denied
from portal.drivers.types import DeviceModel
from portal.hosts.models import Image

MIB, GIB = 1 << 20, 1 << 30
LEAST_MEMORY, MOST_MEMORY = 16 * MIB, 1024 * GIB
MOST_DISK = 64 * 1024 * GIB
#: What is said of an image and is no content of it: who administers it may say it anew at any time.
FIELDS = (
    "title", "version", "description", "os", "uefi", "secure_boot", "tpm", "min_memory", "min_disk",
    "login_user", "cloud_init", "device_models", "every_project", "projects",
)  # fmt: skip
#: More than any OVA has that is taken.
MOST_DISKS = 64
#: Disks of an OVA that become one image together; of more, one is chosen.
MOST_TOGETHER = 16
#: Why nothing is made from an image while an operation makes or deletes it, kept with it until that ends.
BEING_MADE, BEING_DELETED = "It is still being made.", "It is being deleted."
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_OS = re.compile(r"[a-z0-9][a-z0-9.+-]{0,63}")
_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+~_-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Description:
    """What is said of an image (`FIELDS`); memory and disk in bytes, projects by their keys.

    Without a least disk it is what the image itself has.
    """

    title: str
    version: str
    os: str = ""
    description: str = ""
    login_user: str = ""
    min_memory: int = GIB
    min_disk: int = 0
    cloud_init: bool = False
    uefi: bool = False
    secure_boot: bool = False
    tpm: bool = False
    device_models: tuple[str, ...] = (DeviceModel.PARAVIRTUAL.value,)
    every_project: bool = True
    projects: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Wanted(Description):
    """An image as it will be described.

    Without a least memory it is what an appliance says of its machine, and a GiB for everything else; without
    device models, those that its machine had, and paravirtual ones for everything else.
    """

    kind: str
    name: str

    def as_json(self) -> dict[str, Any]:
        """Return it as a row keeps it."""
        return asdict(self) | {"device_models": list(self.device_models), "projects": list(self.projects)}

    @classmethod
    def of(cls, kept: dict[str, Any]) -> "Wanted":
        """Return what `as_json` kept."""
        lists = {name: tuple(kept[name]) for name in ("device_models", "projects")}
        return cls(**kept | lists)


def check_wanted(wanted: Wanted) -> None:
    """Raise Denied, with the field, for the first value that is not taken."""
    if wanted.kind not in Image.Kind.values:
        raise Denied(_("Say whether it is a disk or a CD."), field="kind")
    if not _NAME.fullmatch(wanted.name):
        raise Denied(_("A name has small letters, digits and hyphens, at most 40 of them."), field="name")
    if wanted.min_memory:
        check_memory(wanted.min_memory)
    models = wanted.device_models or (DeviceModel.PARAVIRTUAL.value,)
    check_described(replace(wanted, device_models=models))


def check_memory(least: int) -> None:
    """Raise Denied for what no machine has as its memory."""
    if not LEAST_MEMORY <= least <= MOST_MEMORY:
        raise Denied(_("A machine has between 16 MiB and 1 TiB of memory."), field="min_memory")


def check_described(wanted: Description) -> None:
    """Raise Denied, with the field, for the first value that is not taken; not of the memory."""
    if not 1 <= len(wanted.title.strip()) <= 100:
        raise Denied(_("Give it a title of at most 100 letters."), field="title")
    if not _VERSION.fullmatch(wanted.version):
        raise Denied(_("A version has letters, digits and . + ~ _ -, at most 64 of them."), field="version")
    if len(wanted.description) > 2000:
        raise Denied(_("Describe it in at most 2000 letters."), field="description")
    if not 0 <= wanted.min_disk <= MOST_DISK:
        raise Denied(_("A disk has at most 64 TiB."), field="min_disk")
    if not wanted.device_models or not set(wanted.device_models) <= set(DeviceModel):
        raise Denied(_("Say which devices it has drivers for."), field="device_models")
    if wanted.secure_boot and not wanted.uefi:
        raise Denied(_("Secure Boot is a part of UEFI; choose that too."), field="secure_boot")
    if wanted.cloud_init and not wanted.login_user:
        raise Denied(_("Say as whom one signs in: cloud-init puts the keys there."), field="login_user")
    if wanted.login_user and not _USER.fullmatch(wanted.login_user):
        raise Denied(_("A user has small letters, digits, _ and -, at most 32 of them."), field="login_user")
    check_system(wanted.os)
    check_projects(wanted.every_project, wanted.projects)


def check_version(kind: str, name: str, version: str) -> None:
    """Raise Denied when an image of that name has the version already."""
    same = Image.objects.filter(kind=kind, name=name, version=version).first()
    if same is not None:
        told = {"image": same.title, "version": same.version}
        words = _("There is version %(version)s of %(image)s already; give this one another.")
        raise Denied(words % told, field="version")


def check_system(system: str) -> None:
    """Raise Denied unless `system` can be a name of osinfo-db, or is ''."""
    if system and not _OS.fullmatch(system):
        raise Denied(_("Write the system as osinfo-db does: debian12, win2k22."), field="os")


def check_projects(every_project: bool, projects: tuple[int, ...]) -> None:
    """Raise Denied unless somebody may use it."""
    if not every_project and not projects:
        raise Denied(_("Choose at least one project, or every project."), field="projects")
    if Project.objects.filter(pk__in=projects).count() != len(set(projects)):
        raise Denied(_("One of the projects is not there any more."), field="projects")


def check_disk(kind: str, number: int | None) -> None:
    """Raise Denied for what cannot be the number of a disk in an OVA."""
    if number is None:
        return
    if kind != Image.Kind.DISK:
        raise Denied(_("A CD has no disks to choose from; leave the number out."), field="disk")
    if not 1 <= number <= MOST_DISKS:
        words = _("The disks of an OVA have numbers from 1 to %(most)d.") % {"most": MOST_DISKS}
        raise Denied(words, field="disk")


def go_together(count: int) -> bool:
    """Tell whether so many disks of an OVA become one image, where nobody said a number."""
    return 1 < count <= MOST_TOGETHER


def check_sha256(text: str, *, needed: bool) -> str:
    """Return a SHA-256 in small letters, '' for none. Raises Denied."""
    digest = text.strip().lower()
    if not digest and needed:
        refusal = _("Say the SHA-256 of the file: nothing else tells that the right one came.")
        raise Denied(refusal, field="sha256")
    if digest and not _SHA256.fullmatch(digest):
        raise Denied(_("A SHA-256 has 64 digits from 0 to 9 and a to f."), field="sha256")
    return digest


def file_name_of(address: str) -> str:
    """Return what the file at `address` is called there."""
    return urlsplit(address).path.rpartition("/")[2][:255]
