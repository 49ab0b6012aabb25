"""Definitions in a libvirt are changed without a loss, or not at all."""

import libvirt
import pytest

from portal.drivers import errors
from portal.drivers.inspection import Kind, inspect
from portal.drivers.libvirt.definition import Definitions
from tests.drivers.test_foreign import libvirtd, sample  # noqa: F401 (a fixture)


@pytest.fixture
def domain(libvirtd):  # noqa: F811
    """A domain that somebody made, with a password, metadata of others and the like."""
    made = libvirtd.defineXML(sample("domain").decode())
    yield made
    made.undefine()


@pytest.fixture
def definitions(libvirtd):  # noqa: F811
    return Definitions(libvirtd)


def lines(text):
    return [line.strip() for line in text.splitlines()]


def test_a_change_loses_no_line_of_what_others_wrote(domain, definitions):
    """Red when the definition is read without its secrets, or made anew from what is understood."""
    before = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE)
    change = {"title": "Changed", "devices": {"watchdogs": [{"action": "poweroff"}]}}
    made = definitions.change(domain.UUIDString(), change, definitions.read(domain.UUIDString()).digest)
    after = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE)
    gone = [line for line in lines(before) if line not in lines(after)]
    come = [line for line in lines(after) if line not in lines(before)]
    assert [line.split()[0] for line in gone] == ["<title>Builds", "<watchdog"]
    assert len(come) == 2 and "<title>Changed</title>" in come
    assert "secret" in after and "secret" not in made.persistent
    assert any('colour="blue"' in line or "colour='blue'" in line for line in lines(after))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"clock": {"timezone": "UTC"}}, errors.ChangeIgnored),
        ({"on_crash": "nonsense"}, errors.NotSupported),
        ({"memory_slots": 4}, errors.InvalidSpec),
        ({"uuid": "11111111-2222-4333-8444-555555555556"}, errors.InvalidSpec),
    ],
    ids=str,
)
def test_what_libvirt_does_not_take_or_heed_leaves_the_definition_as_it_was(
    domain, definitions, change, error
):
    """Red when what libvirt left out is not looked for, or what was there is not put back."""
    before = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE)
    seen = definitions.read(domain.UUIDString())
    with pytest.raises(error):
        definitions.change(domain.UUIDString(), {"title": "fine", **change}, seen.digest)
    assert domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE) == before


def test_what_somebody_changed_by_virsh_is_not_overwritten(libvirtd, domain, definitions):  # noqa: F811
    """Red when the digest is not compared with that of the definition as it is now."""
    seen = definitions.read(domain.UUIDString())
    libvirtd.defineXML(sample("domain").decode().replace("Builds", "Rebuilds"))
    with pytest.raises(errors.DefinitionChanged):
        definitions.change(domain.UUIDString(), {"vcpus": 8}, seen.digest)
    now = inspect(Kind.DOMAIN, definitions.read(domain.UUIDString()).persistent.encode()).understood
    assert (now["vcpus"], now["title"]) == (4, "Rebuilds <things>")


def test_a_domain_that_is_only_while_it_runs_is_not_defined_by_a_change(libvirtd, definitions):  # noqa: F811
    text = "<domain type='test'><name>passing</name><memory>1024</memory><os><type>hvm</type></os></domain>"
    passing = libvirtd.createXML(text)
    try:
        found = definitions.read(passing.UUIDString())
        assert found.persistent == "" and "passing" in found.running
        with pytest.raises(errors.InvalidState):
            definitions.change(passing.UUIDString(), {"title": "a"}, found.digest)
        assert not passing.isPersistent()
    finally:
        passing.destroy()


def disk(dev, bus, device="disk"):
    at = f"<target dev='{dev}' bus='{bus}'/>"
    return f"<disk type='file' device='{device}'><source file='/x/{dev}'/>{at}</disk>"


@pytest.mark.parametrize(
    ("disks", "name", "bus"),
    [
        ([disk("sda", "sata"), disk("sdb", "sata"), disk("sdc", "sata", "cdrom")], "sdb", "virtio"),
        ([disk("vda", "virtio"), disk("sda", "scsi", "cdrom"), disk("vdb", "scsi")], "vdb", "virtio"),
        ([disk("vda", "virtio"), disk("sda", "sata", "cdrom"), disk("vdb", "virtio")], "vdb", "sata"),
    ],
    ids=["another of its bus slides into its place", "back", "there"],
)
def test_a_disk_that_libvirt_puts_into_another_place_was_heeded(libvirtd, definitions, disks, name, bus):  # noqa: F811
    """Red when the places of disks are compared as they stand: libvirt sorts them by bus and name."""
    head = "<domain type='test'><name>sorted</name><memory>65536</memory><os><type>hvm</type></os><devices>"
    made = libvirtd.defineXML(f"{head}{''.join(disks)}</devices></domain>")
    try:
        seen = definitions.read(made.UUIDString())
        there = inspect(Kind.DOMAIN, seen.persistent.encode()).understood["devices"]["disks"]
        names = [one["target"]["dev"] for one in there]
        change = [{} for _one in names]
        change[names.index(name)] = {"target": {"bus": bus}, "address": None}
        told = definitions.change(made.UUIDString(), {"devices": {"disks": change}}, seen.digest)
        after = inspect(Kind.DOMAIN, told.persistent.encode()).understood["devices"]["disks"]
        assert {one["target"]["dev"]: one["target"]["bus"] for one in after}[name] == bus
    finally:
        made.undefine()
