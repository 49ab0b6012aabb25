"""How a guest runs, on two axes and in words: who carries out its instructions, and which devices it sees.

Not for: which of it an item or a host offers (`vms.offers`), and not for the devices' XML.
"""

from typing import Any

from django.db import models
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from portal.drivers.types import Accelerator, DeviceModel


class Devices(models.TextChoices):
    """The device model, as people choose it."""

    PARAVIRTUAL = DeviceModel.PARAVIRTUAL.value, gettext_lazy("Paravirtualization")
    EMULATED = DeviceModel.EMULATED.value, gettext_lazy("Full virtualization")


class Wanted(models.TextChoices):
    """Which accelerator a request asks for."""

    BEST = "best", gettext_lazy("Best available")
    KVM = Accelerator.KVM.value, gettext_lazy("Hardware-assisted only (KVM)")
    EMULATION = Accelerator.EMULATION.value, gettext_lazy("Emulated processor only")


HELP = {
    Devices.PARAVIRTUAL: gettext_lazy(
        "Disks, network and screen are made for virtual machines (virtio). Fastest; the system needs drivers "
        "for them, which every current Linux has."
    ),
    Devices.EMULATED: gettext_lazy(
        "The machine looks like a real computer: SATA disk, Intel network card, VGA. For systems that know "
        "nothing of virtualization. Slower, and without the guest agent."
    ),
    Wanted.BEST: gettext_lazy("Runs at the processor's own speed where the host was proven to give that."),
    Wanted.KVM: gettext_lazy(
        "Hardware-assisted virtualization: the processor runs the guest by itself, at nearly full speed. "
        "Waits for a host that was proven to do it."
    ),
    Wanted.EMULATION: gettext_lazy(
        "A program carries out each instruction. Many times slower, and works on every host."
    ),
}


def first_disk(devices: str) -> str:
    """Return the device name of a machine's first disk."""
    return "sda" if devices == Devices.EMULATED else "vda"


def resolve(wanted: str, host_accelerator: str) -> str:
    """Return the accelerator that a machine gets which asked for `wanted` on a host proven by the other."""
    return host_accelerator if wanted == Wanted.BEST else wanted


def words(accelerator: str, devices: str) -> str:
    """Return the type of a machine that exists, in the words that people know it by."""
    if accelerator == Accelerator.XEN:
        full = devices == Devices.EMULATED
        return _("Full virtualization on Xen") if full else _("Paravirtualization on Xen")
    kvm = accelerator == Accelerator.KVM
    if devices == Devices.EMULATED:
        return _("Full virtualization, hardware-assisted") if kvm else _("Full virtualization in software")
    if kvm:
        return _("Paravirtualization, hardware-assisted")
    if accelerator == Accelerator.EMULATION:
        return _("Paravirtualization on an emulated processor")
    return _("Paravirtualization")


def pinned(spec: dict[str, Any]) -> tuple[str, str]:
    """Return what a frozen request asks for as (accelerator, devices); old ones did not say."""
    asked = spec["pinned"].get("virtualization", {})
    return asked.get("accelerator", Wanted.BEST.value), asked.get("devices", Devices.PARAVIRTUAL.value)
