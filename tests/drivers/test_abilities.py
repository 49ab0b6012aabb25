"""What a host's answers about its domains are read as, by recorded ones."""

from pathlib import Path

import pytest

from portal.drivers.errors import InvalidSpec
from portal.drivers.libvirt.xml.abilities import abilities_of
from portal.drivers.types import DomainAbilities

DATA = Path(__file__).parents[1] / "data/abilities"


def recorded(name: str) -> DomainAbilities:
    return abilities_of((DATA / f"{name}.xml").read_text(), name.partition("-")[2])


def test_kvm_hands_its_processor_through_and_lists_the_models_it_can_run() -> None:
    """Red when a mode or a model that is not supported is told."""
    able = recorded("kvm-q35")
    assert (able.type, able.arch, able.board, able.machine) == ("kvm", "x86_64", "q35", "pc-q35-7.2")
    assert {"host-passthrough", "host-model", "custom"} <= set(able.cpu_modes)
    assert "pentium3" in able.cpu_models and "EPYC" not in able.cpu_models
    # This host had no swtpm then.
    assert able.tpm_models == ("tpm-tis", "tpm-crb") and able.tpm_backends == ("passthrough",)


def test_emulation_has_no_processor_to_hand_through() -> None:
    able = recorded("qemu-q35")
    assert able.type == "qemu" and "host-passthrough" not in able.cpu_modes and able.max_vcpus == 288
    assert able.uefi and able.secure_boot and "emulator" in able.tpm_backends
    assert "virtio" in able.videos and "vnc" in able.graphics and {"usb", "pci"} <= set(able.host_devices)


def test_the_older_board_has_no_secure_boot() -> None:
    able = recorded("qemu-pc")
    assert "ide" in able.disk_buses and "ide" not in recorded("qemu-q35").disk_buses
    assert able.uefi and not able.secure_boot and able.machine.startswith("pc-i440fx-")


def test_xen_says_what_it_lacks() -> None:
    """Red when devices of `supported='no'` are told, or a firmware's keys are taken for there."""
    able = recorded("xen-xenfv")
    assert able.cpu_modes == ("host-passthrough",) and not able.cpu_models and not able.tpm_backends
    assert able.uefi and not able.secure_boot and able.videos == ("vga", "cirrus", "xen")


@pytest.mark.parametrize(
    "text",
    ["<domainCapabilities/>", "<domainCapabilities><vcpu max='many'/><os/><cpu/></domainCapabilities>"],
)
def test_an_answer_that_says_little_is_none_that_fails(text: str) -> None:
    assert abilities_of(text, "") == DomainAbilities("", "", "")


def test_what_is_no_answer_is_refused() -> None:
    with pytest.raises(InvalidSpec):
        abilities_of("<domainCapabilities>", "q35")
