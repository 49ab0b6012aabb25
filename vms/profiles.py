"""What board a machine is made with: firmware, TPM, and what Windows wants. Not for: settings of machines.

Which there is to choose from follows from the system in the image and from how it starts; which can be had,
from what hosts say they can give.
"""

from collections.abc import Collection, Mapping
from typing import Any

from django.db import models
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from portal.core import osinfo
from portal.hosts.models import GIVEN_BY, Host, Image, ImageAttachment
from vms import virtualization
from vms.models import CatalogueItem
from vms.virtualization import Devices, Wanted

#: What the CD of drivers for virtio is called that an admin adds as an image.
DRIVERS = "virtio-win"
_WINDOWS_FAMILY = "winnt"
_BOARD, _ARCHITECTURE = "q35", "x86_64"


class Profile(models.TextChoices):
    """A board, as people choose it."""

    STANDARD = "standard", gettext_lazy("BIOS")
    UEFI = "uefi", gettext_lazy("UEFI")
    UEFI_TPM = "uefi-tpm", gettext_lazy("UEFI, with a TPM")
    SECURE = "secure", gettext_lazy("UEFI with Secure Boot")
    SECURE_TPM = "secure-tpm", gettext_lazy("UEFI with Secure Boot and a TPM")
    TPM = "tpm", gettext_lazy("BIOS, with a TPM")
    WINDOWS = "windows", gettext_lazy("For Windows, with UEFI, Secure Boot and a TPM")
    WINDOWS_BIOS = "windows-bios", gettext_lazy("For Windows, with a BIOS")


HELP = {
    Profile.WINDOWS: gettext_lazy(
        "UEFI that starts only what is signed, a TPM 2.0, a clock of local time, and the interfaces of "
        "Hyper-V where the processor runs the guest itself. Windows 11 needs it."
    ),
    Profile.WINDOWS_BIOS: gettext_lazy(
        "A BIOS and no TPM, but the same clock and interfaces. For a Windows that knows no UEFI."
    ),
}
#: What of `DomainSpec` each sets.
FLAGS: Mapping[str, Mapping[str, bool]] = {
    Profile.STANDARD: {},
    Profile.UEFI: {"uefi": True},
    Profile.UEFI_TPM: {"uefi": True, "tpm": True},
    Profile.SECURE: {"uefi": True, "secure_boot": True},
    Profile.SECURE_TPM: {"uefi": True, "secure_boot": True, "tpm": True},
    Profile.TPM: {"tpm": True},
    Profile.WINDOWS: {"uefi": True, "secure_boot": True, "tpm": True, "windows": True},
    Profile.WINDOWS_BIOS: {"windows": True},
}


def is_windows(image: Image) -> bool:
    """Tell whether osinfo-db knows the system in the image as a Windows."""
    known = osinfo.knowledge(image.os) if image.os else None
    return known is not None and known.family == _WINDOWS_FAMILY


def starts_by_uefi(defined: Mapping[str, Any]) -> bool:
    """Tell whether a machine starts by UEFI; `defined` is as `drivers.inspection` names what it is."""
    system = defined.get("os", {})
    return system.get("firmware") == "efi" or system.get("loader_type") == "pflash"


def board_of(defined: Mapping[str, Any]) -> dict[str, Any]:
    """Return the board of a machine as an image keeps it: `uefi`, `secure_boot` and `tpm`.

    Secure Boot is what asks for a firmware with keys: without them it starts whatever there is.
    """
    system, uefi = defined.get("os", {}), starts_by_uefi(defined)
    features = {one.get("name"): one.get("enabled") for one in system.get("firmware_features", ()) if one}
    secure = bool(features.get("secure-boot")) and features.get("enrolled-keys") is not False
    return {"uefi": uefi, "secure_boot": uefi and secure, "tpm": bool(defined.get("devices", {}).get("tpms"))}


def profiles_of(image: Image) -> list[Profile]:
    """Return the boards that the system in an image can be on, the first by itself.

    What a disk was installed by, it starts by; only an installer leaves a choice.
    """
    known = osinfo.knowledge(image.os) if image.os else None
    uefi = image.uefi or (known is not None and known.needs_uefi)
    if not is_windows(image):
        wanted = {"uefi": uefi, "secure_boot": uefi and image.secure_boot, "tpm": image.tpm}
        return [_board_with({name for name, has in wanted.items() if has})]
    if uefi:
        return [Profile.WINDOWS]
    return [Profile.WINDOWS, Profile.WINDOWS_BIOS] if image.needs_installer else [Profile.WINDOWS_BIOS]


def _board_with(parts: Collection[str]) -> Profile:
    return next(board for board in Profile if set(FLAGS[board]) == set(parts))


def needs_host(profile: str) -> bool:
    """Tell whether a board is one that not every host can give."""
    flags = FLAGS[profile]
    return flags.get("uefi", False) or flags.get("tpm", False)


def lacks(host: Host, profile: str, wanted: str) -> str:
    """Return what `host` lacks for a board, in words, '' for nothing; `wanted` is the accelerator."""
    flags = FLAGS[profile]
    if not needs_host(profile):
        return ""
    kind = virtualization.resolve(wanted, host.accelerator)
    told = next(
        (
            able
            for able in host.readiness.get("abilities", ())
            if (able["type"], able["arch"], able["board"]) == (kind, _ARCHITECTURE, _BOARD)
        ),
        None,
    )
    if told is None:
        return _("it has not told what it can give; an admin proves it again")
    if flags.get("uefi") and not told["uefi"]:
        return _("it has no UEFI firmware (package ovmf)")
    if flags.get("secure_boot") and not told["secure_boot"]:
        return _("it has no firmware for Secure Boot (package ovmf)")
    if flags.get("tpm") and ("emulator" not in told["tpm_backends"] or "tpm-crb" not in told["tpm_models"]):
        return _("it has no program that plays a TPM (packages swtpm and swtpm-tools)")
    return ""


def refusal(item: CatalogueItem, profile: str, accelerator: str = "") -> str:
    """Return why no host can give `profile` to a machine of `item`, '' when one can or none has its image."""
    if not needs_host(profile):
        return ""
    wanted = accelerator or item.default_accelerator
    found = ImageAttachment.objects.filter(image=item.image_id, pool__host__accelerator__in=GIVEN_BY)
    hosts = {place.pool.host for place in found.select_related("pool__host")}
    reasons = {host.name: lacks(host, profile, wanted) for host in hosts}
    if not reasons or not all(reasons.values()):
        return ""
    told = "; ".join(f"{name}: {reasons[name]}" for name in sorted(reasons))
    label = Profile(profile).label
    return _("No host can give a machine this board (%(board)s). %(reasons)s.") % {
        "board": label,
        "reasons": told,
    }


def drivers_for(item: CatalogueItem, devices: str) -> Image | None:
    """Return the CD of drivers that an installation of Windows on virtio needs, None where none is there."""
    if not needs_drivers(item, devices):
        return None
    found = Image.objects.filter(name=DRIVERS, kind=Image.Kind.ISO, deprecated_at=None, every_project=True)
    return found.order_by("-pk").first()


def needs_drivers(item: CatalogueItem, devices: str) -> bool:
    """Tell whether an installer of `item` finds no disk by itself: Windows brings no drivers for virtio."""
    chosen = devices or item.default_devices
    return item.image.needs_installer and is_windows(item.image) and chosen == Devices.PARAVIRTUAL


def no_drivers(item: CatalogueItem, devices: str) -> str:
    """Return why an installer of `item` would find no disk, '' when it would."""
    if not needs_drivers(item, devices) or drivers_for(item, devices) is not None:
        return ""
    return _(
        "Windows has no drivers for virtio disks. Choose full virtualization, or let an admin add the CD of "
        "drivers as an image of the name %(name)s, for every project."
    ) % {"name": DRIVERS}


def pinned(spec: Mapping[str, Any]) -> str:
    """Return the board that a frozen request asks for; those of before did not say."""
    return str(spec["pinned"].get("profile", Profile.STANDARD.value))


def drivers_pinned(spec: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the CD of drivers that a frozen request asks for, '' for none."""
    told = spec["pinned"].get("install", {}).get("drivers")
    return str(told["sha256"]) if told else ""


def gives(host: Host, spec: Mapping[str, Any]) -> bool:
    """Tell whether `host` can give what a frozen request asks for beside its image: board, CD of drivers."""
    wanted, _devices = virtualization.pinned(dict(spec))
    if lacks(host, pinned(spec), wanted or Wanted.BEST):
        return False
    drivers = drivers_pinned(spec)
    return not drivers or place_of_drivers(host, drivers) is not None


def place_of_drivers(host: Host, sha256: str) -> ImageAttachment | None:
    """Return where the CD of drivers lies on `host`."""
    return ImageAttachment.objects.filter(image__sha256=sha256, pool__host=host).order_by("pk").first()


def hosts_with(sha256: Collection[str]) -> set[tuple[str, int]]:
    """Return which CDs of drivers lie on which hosts; one query, none where nothing is asked."""
    if not sha256:
        return set()
    found = ImageAttachment.objects.filter(image__sha256__in=sha256)
    return set(found.values_list("image__sha256", "pool__host"))
