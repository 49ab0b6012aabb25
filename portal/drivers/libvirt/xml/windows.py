"""What a domain has otherwise for Windows: firmware that others have too, clock, interfaces of Hyper-V."""

from xml.etree import ElementTree as ET

from portal.drivers.libvirt.xml.build import child
from portal.drivers.types import Accelerator, DomainSpec

#: Interfaces of Hyper-V that Windows is faster by; those behind need those before.
_HYPERV = ("relaxed", "vapic", "vpindex", "synic", "stimer", "frequencies")
_SPINLOCK_RETRIES = "8191"  # as Microsoft's specification and libosinfo have it
#: Timer -> what is set of it: interrupts that were missed are made up for, and the slow HPET is not there.
_TIMERS = {"rtc": {"tickpolicy": "catchup"}, "pit": {"tickpolicy": "delay"}, "hpet": {"present": "no"}}


class WindowsElements:
    """Parts of the <domain> element."""

    @staticmethod
    def firmware(system: ET.Element, *, secure: bool) -> None:
        """Say in <os> which UEFI firmware the host is to choose: one that checks signatures, or none such."""
        firmware = child(system, "firmware")
        for name in ("enrolled-keys", "secure-boot"):
            child(firmware, "feature", enabled="yes" if secure else "no", name=name)

    @staticmethod
    def is_secure(root: ET.Element) -> bool:
        """Say whether the firmware is to be one that checks signatures."""
        feature = root.find("os/firmware/feature[@name='secure-boot']")
        return feature is not None and feature.get("enabled") == "yes"

    @staticmethod
    def add(root: ET.Element, features: ET.Element, spec: DomainSpec) -> None:
        """Append the clock, and to <features> what Windows asks a hypervisor for."""
        clock = child(root, "clock", offset="localtime")
        for name, policy in _TIMERS.items():
            child(clock, "timer", name=name, **policy)
        if spec.accelerator is not Accelerator.KVM:
            return  # QEMU's own emulation of a processor has no interfaces of Hyper-V
        child(clock, "timer", name="hypervclock", present="yes")
        hyperv = child(features, "hyperv", mode="custom")
        for name in _HYPERV:
            child(hyperv, name, state="on")
        child(hyperv, "spinlocks", state="on", retries=_SPINLOCK_RETRIES)

    @staticmethod
    def are_in(root: ET.Element) -> bool:
        """Say whether a domain has them, by its clock."""
        clock = root.find("clock")
        return clock is not None and clock.get("offset") == "localtime"
