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

#: What controllers and cards are called by who makes appliances, in small letters -> libvirt's words. `scsi`
#: is a controller of real hardware; virtio's counts as virtio.
BUSES = {
    "virtio": "virtio",
    "virtio-scsi": "virtio",
    "virtioscsi": "virtio",
    "virtio_scsi": "virtio",
    "ahci": "sata",
    "vmware.sata.ahci": "sata",
    "vmware.nvme.controller": "nvme",
    "nvme": "nvme",
    "piix3": "ide",
    "piix4": "ide",
    "ich6": "ide",
    "lsilogic": "scsi",
    "lsilogicsas": "scsi",
    "buslogic": "scsi",
    "virtualscsi": "scsi",
}
CARDS = {
    "virtio": "virtio",
    "virtio-net": "virtio",
    "e1000": "e1000",
    "e1000e": "e1000e",
    "vmxnet3": "vmxnet3",
    "vmxnet2": "vmxnet3",
    "vmxnet": "vmxnet3",
    "pcnet32": "pcnet",
    "pcnet": "pcnet",
    "rtl8139": "rtl8139",
}


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
    #: It starts by UEFI, not by a BIOS; the UEFI starts only what is signed; it has a TPM.
    uefi: bool = False
    secure_boot: bool = False
    tpm: bool = False
    #: What its first disk hangs on and what its first card is, by libvirt's words (`BUSES`, `CARDS`); empty
    #: for what it does not say.
    bus: str = ""
    card: str = ""
    #: What it calls its system, in the words of who made it, the plainest first.
    systems: tuple[str, ...] = ()
    #: How many disks it has besides that begin empty, and are in no file.
    blank: int = 0
