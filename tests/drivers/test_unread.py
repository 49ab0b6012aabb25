"""What waits for a domain's next start in elements that the portal does not read."""

import pytest

from portal.drivers.inspection import Kind, inspect
from portal.drivers.libvirt.xml.foreign.unread import MOST_ELEMENTS, MOST_LETTERS, waiting
from portal.drivers.reading import DefinitionSeen
from portal.drivers.types import DomainDefinition


def domain(inner, attributes=""):
    return f"<domain{attributes}><name>one</name>{inner}</domain>"


def told(running, persistent):
    sides = (inspect(Kind.DOMAIN, domain(inner).encode()).kept for inner in (running, persistent))
    return waiting(*sides)


@pytest.mark.parametrize(
    ("inner", "name", "text"),
    [
        ("<cputune>\n  <shares>2048</shares>\n</cputune>", "cputune",
         "<cputune><shares>2048</shares></cputune>"),
        ("<blkiotune><weight>500</weight></blkiotune>", "blkiotune",
         "<blkiotune><weight>500</weight></blkiotune>"),
        ('<numatune><memory mode="strict" nodeset="0"/></numatune>', "numatune",
         '<numatune><memory mode="strict" nodeset="0"/></numatune>'),
        ('<memtune><hard_limit unit="KiB">1</hard_limit></memtune>', "memtune",
         '<memtune><hard_limit unit="KiB">1</hard_limit></memtune>'),
        ("<iothreads>2</iothreads>", "iothreads", "<iothreads>2</iothreads>"),
        ("<memoryBacking><hugepages/></memoryBacking>", "memoryBacking",
         "<memoryBacking><hugepages/></memoryBacking>"),
        ('<cpu><numa><cell id="0" cpus="0"/></numa></cpu>', "cpu",
         '<numa><cell id="0" cpus="0"/></numa>'),
        ('<vcpu cpuset="0-3">1</vcpu>', "vcpu", "@cpuset=0-3"),
        ('<os><bootmenu enable="yes" timeout="3"/></os>', "os", "bootmenu/@timeout=3"),
        ('<features><apic eoi="on"/></features>', "features", '<apic eoi="on"/>'),
        ("<resource><partition>/own</partition></resource>", "resource",
         "<resource><partition>/own</partition></resource>"),
        ('<seclabel type="static" model="dac"><label>a</label><imagelabel>b</imagelabel></seclabel>',
         "seclabel", '<seclabel type="static" model="dac"><label>a</label></seclabel>'),
        ("<devices><iommu model=\"intel\"/></devices>", "devices/iommu", "1"),
        ("<memory dumpCore='off'>1</memory>", "memory", "@dumpCore=off"),
    ],
    ids=str,
)  # fmt: skip
def test_what_people_set_is_told_both_ways_and_once(inner, name, text):
    """Red when an element is left out, or compared with how libvirt lays it out."""
    assert told("", inner) == {name: ["", text]}
    assert told(inner, "") == {name: [text, ""]}
    assert told(inner, inner.replace("\n", "\n  ")) == {}


@pytest.mark.parametrize(
    ("running", "persistent"),
    [
        ("<resource><partition>/machine</partition></resource>", ""),
        ('<seclabel type="dynamic" model="dac" relabel="yes"><label>+0:+0</label></seclabel>', ""),
        ('<seclabel type="none" model="selinux"/>', ""),
        ('<seclabel type="static" model="dac"><label>a</label><imagelabel>b</imagelabel></seclabel>',
         '<seclabel type="static" model="dac"><label>a</label></seclabel>'),
        ('<seclabel type="dynamic" model="dac"><baselabel>c</baselabel><label>a</label></seclabel>',
         '<seclabel type="dynamic" model="dac"><baselabel>c</baselabel></seclabel>'),
        ('<cputune><cachetune vcpus="0" id="vcpus_0"/></cputune>',
         '<cputune><cachetune vcpus="0"/></cputune>'),
        ('<cpu><model vendor_id="x">EPYC</model><maxphysaddr bits="40"/></cpu>', '<cpu mode="host-model"/>'),
        ('<features><gic version="3"/></features>', '<features><gic version="host"/></features>'),
        ('<features><hyperv mode="passthrough"><relaxed state="on"/></hyperv></features>',
         '<features><hyperv mode="passthrough"/></features>'),
        ('<clock offset="variable" adjustment="7"/>', '<clock offset="variable" adjustment="0"/>'),
        ('<launchSecurity type="sev"><policy>3</policy><cbitpos>47</cbitpos></launchSecurity>',
         '<launchSecurity type="sev"><policy>3</policy></launchSecurity>'),
        ("<genid>aaa</genid>", "<genid/>"),
        ('<vcpus><vcpu id="0" enabled="yes" order="1"/></vcpus>', ""),
        ("<metadata><a:b xmlns:a='urn:a'/></metadata><title>t</title>", "<title>u</title>"),
        ('<os><loader stateless="yes"/><nvram type="file"/></os>', "<os/>"),
        ('<devices><disk><alias name="a"/></disk></devices>', "<devices><disk/></devices>"),
        ('<devices><iommu><alias name="a"/></iommu></devices>', "<devices><iommu/></devices>"),
        ("<!-- said -->", ""),
    ],
    ids=str,
)  # fmt: skip
def test_what_libvirt_fills_in_at_a_start_is_not_told(running, persistent):
    """Red when a line of _NEVER, _CHOSEN, _EXPANDED, _is_left_out or _CLEANED is left out."""
    assert told(running, persistent) == {}


def test_what_differs_beside_what_is_filled_in_is_told():
    """Red when an element goes as a whole of which libvirt fills in a part."""
    tuned = '<cputune><shares>{}</shares><cachetune vcpus="0" id="vcpus_0"/></cputune>'
    assert told(tuned.format(1), tuned.format(2)).keys() == {"cputune"}
    labels = '<seclabel type="static" model="dac"><label>{}</label><imagelabel>b</imagelabel></seclabel>'
    assert told(labels.format(1), labels.format(2)).keys() == {"seclabel"}
    assert told("<devices><memory/></devices>", "<devices><memory/><memory/></devices>") == {
        "devices/memory": ["1", "2"]
    }


def test_what_a_host_says_without_end_is_cut():
    """Red when _cut(), or MOST_ELEMENTS, is left out."""
    long = told("", f"<cputune>{'<a/>' * 9999}</cputune>")["cputune"][1]
    assert len(long) == MOST_LETTERS + 1 and long.endswith("…")
    assert len(told("", "".join(f"<e{number}/>" for number in range(999)))) == MOST_ELEMENTS
    assert told("", "<cputune><a>\u202ex</a></cputune>")["cputune"][1] == "<cputune><a>x</a></cputune>"


def test_a_definition_tells_it_where_there_are_two():
    """Red when DefinitionSeen.of() compares nothing, or what is off with nothing."""
    tuned, plain = domain("<iothreads>2</iothreads>"), domain("")
    assert DefinitionSeen.of(DomainDefinition(tuned, plain)).unread == {
        "iothreads": ["", "<iothreads>2</iothreads>"]
    }
    assert DefinitionSeen.of(DomainDefinition(tuned)).unread == {}
    assert DefinitionSeen.of(DomainDefinition("", tuned)).unread == {}
