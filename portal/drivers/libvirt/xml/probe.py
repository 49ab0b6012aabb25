"""The <domain> element of a proof: the least that boots a sector and has a serial port."""

from xml.etree import ElementTree as ET

from portal.drivers.libvirt.xml.build import child, serialise
from portal.drivers.types import Accelerator
from portal.drivers.validation import check_name, check_path

MEMORY_MIB = 32
WORD_BYTES = 64
_SECTOR = 512
_DISK_BYTES = 1024 * 1024  # a BIOS finds no geometry in a disk of a few sectors
# AT&T syntax, loaded at 0000:7c00. It waits for one tick of the timer, enters 64-bit mode with paging as
# every kernel does, and writes the word behind it to the first serial port over and over: what a guest
# writes before someone opens the console is lost.
_CODE = bytes.fromhex(
    "31c0"  # _start: xorw %ax,%ax
    "8ed8"  # movw %ax,%ds
    "8ec0"  # movw %ax,%es
    "8ed0"  # movw %ax,%ss
    "bc007c"  # movw $0x7c00,%sp
    "fc"  # cld
    "fb"  # sti
    "f4"  # hlt
    "fa"  # cli
    "bf0010"  # movw $0x1000,%di
    "b90018"  # movw $0x1800,%cx
    "f3ab"  # rep stosw
    "c70600100320"  # movw $0x2003,0x1000
    "c70600200330"  # movw $0x3003,0x2000
    "c606003083"  # movb $0x83,0x3000
    "66b800100000"  # movl $0x1000,%eax
    "0f22d8"  # movl %eax,%cr3
    "66b820000000"  # movl $0x20,%eax
    "0f22e0"  # movl %eax,%cr4
    "66b9800000c0"  # movl $0xc0000080,%ecx
    "0f32"  # rdmsr
    "0d0001"  # orw $0x100,%ax
    "0f30"  # wrmsr
    "660f0116887c"  # lgdtl gdtr
    "66b801000080"  # movl $0x80000001,%eax
    "0f22c0"  # movl %eax,%cr0
    "ea5b7c0800"  # ljmpw $8,$long
    "be8e7c0000"  # long: movl $word,%esi
    "ac"  # next: lodsb
    "84c0"  # testb %al,%al
    "74f6"  # jz long
    "88c3"  # movb %al,%bl
    "66bafd03"  # movw $0x3fd,%dx
    "ec"  # wait: inb %dx,%al
    "a820"  # testb $0x20,%al
    "74fb"  # jz wait
    "b2f8"  # movb $0xf8,%dl
    "88d8"  # movb %bl,%al
    "ee"  # outb %al,%dx
    "ebe9"  # jmp next
    "90"  # .balign 8
    "0000000000000000"  # gdt: .quad 0
    "00000000009a2000"  # .quad 0x00209a0000000000
    "0f00"  # gdtr: .word 15
    "787c0000"  # .long gdt
)


def boot_disk(word: str) -> bytes:
    """Return a disk whose first sector a BIOS boots, to write `word` to the serial port until stopped."""
    text = word.encode("ascii")
    if not 0 < len(text) < WORD_BYTES:
        raise ValueError("the word is empty or too long")
    sector = (_CODE + text + b"\0").ljust(_SECTOR - 2, b"\0") + b"\x55\xaa"
    return sector.ljust(_DISK_BYTES, b"\0")


def probe_xml(name: str, accelerator: Accelerator, disk: str) -> str:
    """Return the definition of a machine that boots the raw file `disk`. Raises InvalidSpec."""
    root = ET.Element("domain", type=accelerator.value)
    child(root, "name", check_name(name))
    child(root, "memory", str(MEMORY_MIB), unit="MiB")
    child(root, "vcpu", "1")
    system = child(root, "os")
    child(system, "type", "hvm", arch="x86_64", machine="q35")
    child(system, "boot", dev="hd")
    child(child(root, "features"), "acpi")
    if accelerator is Accelerator.KVM:
        # As the machines themselves have it: a host may run its plainest processor and fail at this one.
        child(root, "cpu", mode="host-model")
    for event in ("poweroff", "reboot", "crash"):
        child(root, f"on_{event}", "destroy")
    devices = child(root, "devices")
    source = child(devices, "disk", type="file", device="disk")
    child(source, "driver", name="qemu", type="raw")
    child(source, "source", file=check_path(disk))
    child(source, "target", dev="vda", bus="virtio")
    child(source, "readonly")
    child(child(devices, "serial", type="pty"), "target", port="0")
    child(child(devices, "console", type="pty"), "target", type="serial", port="0")
    child(devices, "memballoon", model="none")
    child(devices, "controller", type="usb", model="none")
    return serialise(root)
