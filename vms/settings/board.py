"""A machine's board: its version, its firmware and its TPM."""

from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from portal.drivers.types import FRESH, LEFT
from vms.settings.abilities import board_of, unknown
from vms.settings.model import Choices, Defined, Ground, Setting, devices, word_of

# Machine type


def _os(defined: Defined) -> Any:
    return defined.get("os", {})


def _read_machine(defined: Defined) -> str:
    return str(_os(defined).get("machine", ""))


def _machine_choices(ground: Ground) -> Choices:
    board = board_of(ground.defined)
    versions = [name for name in ground.can("machines") if board_of({"os": {"machine": name}}) == board]
    # `q35` itself is the newest of today, by a name that libvirt would write out.
    dated = [name for name in versions if name != board]
    return [(name, name) for name in sorted(dated, key=_age, reverse=True)]


def _age(machine: str) -> list[int]:
    return [int(part) for part in machine.rpartition("-")[2].split(".") if part.isdecimal()]


def _machine_lacks(_ground: Ground) -> str:
    return _("Another board is another machine: its devices stand in other slots. Make a new machine for it.")


def _machine_fixed(ground: Ground) -> str:
    return unknown(ground) or ("" if _machine_choices(ground) else _("The host knows no other version."))


# Firmware

BIOS, UEFI, SECURE = "bios", "uefi", "secure"
#: Somebody named the file of the firmware, or its file of variables, by hand.
BY_HAND = "by-hand"
_FIRMWARES: Choices = [
    (BIOS, gettext_lazy("BIOS")),
    (UEFI, gettext_lazy("UEFI")),
    (SECURE, gettext_lazy("UEFI with secure boot")),
    (BY_HAND, gettext_lazy("Chosen by hand")),
]
#: How the names begin of what libvirt fills in for a firmware.
_CHOSEN = ("loader", "nvram", "secure_boot")
_KEYS = ("enrolled-keys", "secure-boot")


def _read_firmware(defined: Defined) -> str:
    system = _os(defined)
    if system.get("firmware") == "efi":
        features = {one.get("name"): one.get("enabled") for one in system.get("firmware_features", ()) if one}
        return SECURE if features.get("secure-boot") else UEFI
    return BY_HAND if "loader" in system else BIOS


def firmware_of_run(running: Defined, persistent: Defined) -> str:
    """Return the firmware that what runs was started with, as `persistent` would be read.

    libvirt writes the files that it chose into what runs, and up to 9.1 at least it leaves out that it chose.
    """
    value, then = _read_firmware(running), _read_firmware(persistent)
    if value != BY_HAND or then == BY_HAND:
        return value
    told, wanted = (_os(side).get("firmware_features") for side in (running, persistent))
    if told:
        return _read_firmware({"os": {"firmware": "efi", "firmware_features": told}})
    # Nothing tells one that was chosen without conditions from one that somebody named.
    return then if then != BIOS and not wanted else BY_HAND


def _patch_firmware(ground: Ground, value: str) -> dict[str, Any]:
    system = _os(ground.defined)
    # What libvirt chose for the firmware before goes with it.
    wanted: dict[str, Any] = {name: None for name in system if name.startswith(_CHOSEN)}
    patch: dict[str, Any] = {"os": wanted, "traces": {"firmware": LEFT if value == BIOS else FRESH}}
    if value == BIOS:
        wanted |= {"firmware": None, "firmware_features": None}
    else:
        wanted |= {"firmware": "efi", "firmware_features": _features(system, value == SECURE)}
    if value == SECURE:
        # Without it, any program in the guest could write over what the firmware keeps.
        patch["smm"] = True
    elif _read_firmware(ground.defined) == SECURE:
        patch["smm"] = None
    return patch


def _features(system: Any, secure: bool) -> list[dict[str, Any]]:
    there = [dict(one or {}) for one in system.get("firmware_features", ())]
    changed = [{"enabled": secure} if one.get("name") in _KEYS else {} for one in there]
    missing = [name for name in _KEYS if name not in {one.get("name") for one in there}]
    return [*changed, *({"name": name, "enabled": secure} for name in missing)]


def _firmware_choices(ground: Ground) -> Choices:
    can = {BIOS: True, UEFI: ground.able.get("uefi"), SECURE: ground.able.get("secure_boot")}
    return [(name, label) for name, label in _FIRMWARES if can.get(name)]


def _firmware_fixed(ground: Ground) -> str:
    if reason := unknown(ground):
        return reason
    if _read_firmware(ground.defined) == BY_HAND:
        return _("The firmware is set by the name of its file, which is kept as it is.")
    if _os(ground.defined).get("kernel"):
        return _("The machine starts from a kernel of its host.")
    if not ground.able.get("uefi") and _read_firmware(ground.defined) == BIOS:
        return _("The host has no UEFI; an admin installs the package ovmf there and proves it again.")
    return ""


def _firmware_lacks(ground: Ground) -> str:
    if not ground.able or ground.able.get("secure_boot") or not ground.able.get("uefi"):
        return ""
    if board_of(ground.defined) == "pc":
        return _("Secure boot needs a machine of type q35.")
    return _("The host has no firmware for secure boot.")


# TPM

NO_TPM, SWTPM = "absent", "emulator"
_TPMS: Choices = [
    (NO_TPM, gettext_lazy("No TPM")),
    (SWTPM, gettext_lazy("TPM 2.0, played by a program of the host")),
]


def _read_tpm(defined: Defined) -> str:
    found = devices(defined, "tpms")
    return str(found[0].get("backend", "")) if found else NO_TPM


def _patch_tpm(ground: Ground, value: str) -> dict[str, Any]:
    if value == NO_TPM:
        return {"devices": {"tpms": [None] * len(ground.devices("tpms"))}, "traces": {"tpm": LEFT}}
    models = ground.can("tpm_models")
    model = "tpm-crb" if "tpm-crb" in models else next(iter(models), "tpm-tis")
    tpm = {"model": model, "backend": SWTPM, "version": "2.0"}
    return {"devices": {"tpms": [tpm]}, "traces": {"tpm": None}}


def _tpm_fixed(ground: Ground) -> str:
    now = _read_tpm(ground.defined)
    if len(ground.devices("tpms")) > 1 or now not in {NO_TPM, SWTPM}:
        return _("The TPM is set in a way that is kept as it is.")
    if now == SWTPM:
        return ""
    if reason := unknown(ground):
        return reason
    if not ground.can("tpm_models"):
        return _("The hypervisor gives such machines no TPM.")
    if SWTPM not in ground.can("tpm_backends"):
        return _(
            "The host has no program that plays a TPM; an admin installs the packages swtpm and swtpm-tools "
            "there and proves it again."
        )
    return ""


MACHINE = Setting(
    "machine",
    gettext_lazy("Machine type"),
    _read_machine,
    lambda _ground, value: {"os": {"machine": value}},
    _machine_choices,
    _machine_fixed,
    _machine_lacks,
    hint=gettext_lazy(
        "Another version changes details of the hardware: network cards may get other names in the guest."
    ),
)
FIRMWARE = Setting(
    "firmware",
    gettext_lazy("Firmware"),
    _read_firmware,
    _patch_firmware,
    _firmware_choices,
    _firmware_fixed,
    _firmware_lacks,
    word_of(_FIRMWARES),
    hint=gettext_lazy(
        "A system that was installed with one of them rarely starts with the other. What the firmware kept, "
        "as its boot entries, is lost; going back is possible as long as the disk is as it was."
    ),
)
TPM = Setting(
    "tpm",
    gettext_lazy("TPM"),
    _read_tpm,
    _patch_tpm,
    lambda _ground: _TPMS,
    _tpm_fixed,
    word=word_of(_TPMS),
    hint=gettext_lazy(
        "Without its TPM a guest cannot open a disk that is sealed by it; what the TPM kept is lost with the "
        "machine."
    ),
)
