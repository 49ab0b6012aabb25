"""The <domainCapabilities> element, read only: what a host's emulator can give one kind of domain."""

from xml.etree import ElementTree as ET

from portal.drivers.libvirt.xml.build import parse
from portal.drivers.types import DomainAbilities

#: Of a host that says more than this nobody could choose.
MOST = 500


def abilities_of(text: str, board: str) -> DomainAbilities:
    """Read what libvirt answered for `board`; parts that are missing come out empty. Raises InvalidSpec."""
    root = parse(text)
    cpu = root.find("cpu")
    modes = [] if cpu is None else cpu.findall("mode[@supported='yes']")
    custom = root.findall("cpu/mode[@name='custom']/model[@usable='yes']")
    loader = root.find("os/loader[@supported='yes']")
    flash = loader is not None and "pflash" in _values(loader, "type")
    return DomainAbilities(
        type=root.findtext("domain") or "",
        arch=root.findtext("arch") or "",
        board=board,
        machine=root.findtext("machine") or "",
        max_vcpus=_most(root),
        uefi=flash and "efi" in _values(root.find("os"), "firmware"),
        secure_boot=flash and "yes" in _values(loader, "secure"),
        cpu_modes=tuple(mode.get("name", "") for mode in modes),
        cpu_models=tuple(sorted(model.text or "" for model in custom))[:MOST],
        tpm_models=_device(root, "tpm", "model"),
        tpm_backends=_device(root, "tpm", "backendModel"),
        videos=_device(root, "video", "modelType"),
        graphics=_device(root, "graphics", "type"),
        host_devices=_device(root, "hostdev", "subsysType"),
        disk_buses=_device(root, "disk", "bus"),
    )


def _device(root: ET.Element, kind: str, name: str) -> tuple[str, ...]:
    """Return what a kind of device can be, nothing where the emulator has none."""
    return _values(root.find(f"devices/{kind}[@supported='yes']"), name)


def _values(owner: ET.Element | None, name: str) -> tuple[str, ...]:
    found = [] if owner is None else owner.findall(f"enum[@name='{name}']/value")
    return tuple(value.text or "" for value in found)[:MOST]


def _most(root: ET.Element) -> int:
    vcpu = root.find("vcpu")
    told = "" if vcpu is None else vcpu.get("max", "")
    return int(told) if told.isdecimal() else 0
