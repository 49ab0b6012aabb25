"""What an appliance is; not for reading or writing one."""

from dataclasses import dataclass

#: Disk formats as OVF names them, by the address of their specification, and as qemu-img does.
FORMATS = {
    "http://www.vmware.com/interfaces/specifications/vmdk.html": "vmdk",
    "http://www.gnome.org/~markmc/qcow-image-format.html": "qcow2",
    "https://www.qemu.org/docs/master/interop/qcow2.html": "qcow2",
    "http://technet.microsoft.com/en-us/library/bb676673.aspx": "vpc",
}
QCOW2 = "http://www.gnome.org/~markmc/qcow-image-format.html"


@dataclass(frozen=True, slots=True)
class PackedDisk:
    """A disk in an appliance: the file that it lies in, and its size for the guest in bytes.

    `format` is qemu-img's word; empty where the appliance names none that is known.
    """

    file: str
    capacity_bytes: int
    format: str = "qcow2"


@dataclass(frozen=True, slots=True)
class Appliance:
    """A machine as an appliance describes it; memory in bytes, 0 for what it does not say."""

    name: str
    vcpus: int
    memory_bytes: int
    disks: tuple[PackedDisk, ...]
    #: Names of the networks that its cards want.
    networks: tuple[str, ...] = ()
    #: It starts by UEFI, not by a BIOS.
    uefi: bool = False
    #: What it calls its system, in the words of who made it, the plainest first.
    systems: tuple[str, ...] = ()
    #: How many disks it has besides that begin empty, and are in no file.
    blank: int = 0
