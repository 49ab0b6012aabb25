"""Definitions that others made are changed where somebody asked for it, and nowhere else."""

import copy
from pathlib import Path

import libvirt
import pytest
from lxml import etree

from portal.drivers.errors import InvalidSpec
from portal.drivers.inspection import Kind, agrees, changed, differences, inspect, outcome, reverse

DATA = Path(__file__).parents[1] / "data/foreign"
SAMPLES = {"domain": Kind.DOMAIN, "odd": Kind.DOMAIN, "network": Kind.NETWORK, "volume": Kind.VOLUME}
SMALL = b"""<domain type='test'>
  <name>a</name>
  <memory>1024</memory>
  <os>
    <type>hvm</type>
  </os>
  <devices>
    <disk type='file'><target dev='vda'/><alias name='ua-first'/></disk>
    <disk type='file'><target dev='vdb'/><alias name='ua-second'/></disk>
  </devices>
</domain>"""


def sample(name):
    return (DATA / f"{name}.xml").read_bytes()


def edited(content, change, kind=Kind.DOMAIN):
    return changed(kind, content, change)


def understood(text, kind=Kind.DOMAIN):
    return inspect(kind, text.encode()).understood


def lines(text):
    return [line.strip() for line in text.splitlines() if line.strip()]


def leaves(value, path=()):
    """Yield the path and the value of everything that is no container."""
    inner = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    )
    if inner is None:
        yield path, value
    for name, part in inner or ():
        yield from leaves(part, (*path, name))


def patch(path, value):
    """Return the change that gives the place at `path` a value."""
    for step in reversed(path):
        value = {step: value} if isinstance(step, str) else [*([{}] * step), value]
    return value


def other(value):
    return (not value) if isinstance(value, bool) else value + 1024 if isinstance(value, int) else "other <&>"


def tag(path):
    """A list of bare names holds tags, and what only is there has no other value."""
    return "features" in path[-2:-1] or path[-1] in {"readonly", "shareable"}


@pytest.mark.parametrize("name", SAMPLES)
def test_every_value_can_be_changed_and_all_else_stays(name):
    """Red when a field writes to another place than it reads, or what is not understood is lost."""
    kind, content = SAMPLES[name], sample(name)
    before = inspect(kind, content)
    # Words that stood in an entity are not kept beside the words that replace them.
    kept = [item for item in before.kept if not item.get("xml", "").startswith("&")]
    tried = 0
    for path, value in leaves(before.understood):
        if tag(path):
            continue
        text = edited(content, patch(path, other(value)), kind)
        after = inspect(kind, text.encode())
        assert [(d.at, d.after) for d in differences(before.understood, after.understood)] == [
            (path, other(value))
        ]
        assert [item for item in after.kept if not item.get("xml", "").startswith("&")] == kept
        tried += 1
    assert tried > 5


@pytest.mark.parametrize("name", SAMPLES)
def test_what_is_changed_back_reads_as_before(name):
    """Red when taking away leaves something behind that reads as a value, or takes more than itself."""
    kind, content = SAMPLES[name], sample(name)
    before, tried = inspect(kind, content).understood, 0
    for path, value in leaves(before):
        if tag(path):
            continue
        try:
            gone = edited(content, patch(path, None), kind)
        except InvalidSpec:
            continue  # what something else stands on cannot go alone
        [difference] = differences(before, understood(gone, kind))
        assert path[: len(difference.at)] == difference.at
        back = edited(gone.encode(), patch(path, value), kind)
        assert understood(back, kind) == before
        tried += 1
    assert tried > 5


@pytest.mark.parametrize("name", SAMPLES)
def test_no_change_changes_no_letter(name):
    """Red when a value is written anew that is right already: units and spellings would go."""
    kind, content = SAMPLES[name], sample(name)
    same = edited(content, {}, kind)
    assert edited(content, inspect(kind, content).understood, kind) == same
    heads = ("<?xml", "<!DOCTYPE")
    assert [line for line in lines(content.decode()) if line not in same and not line.startswith(heads)] == []


def test_a_change_touches_its_own_lines_alone():
    """Red when the rest is written in another form."""
    content = sample("domain")
    text = edited(content, {"title": "New & <shiny>", "vcpus": 8, "cpu": {"topology": {"sockets": 2}}})
    before, after = lines(edited(content, {})), lines(text)
    gone = [line for line in before if line not in after]
    assert len(gone) == 3 and len(after) == len(before)
    assert "<title>New &amp; &lt;shiny&gt;</title>" in after
    [vcpu] = [line for line in after if line.startswith("<vcpu")]
    assert 'cpuset="0-3"' in vcpu and vcpu.endswith(">8</vcpu>")


def test_a_new_value_is_indented_like_its_siblings():
    text = edited(SMALL, {"title": "t", "os": {"machine": "q35", "boot": [{"dev": "hd"}, {"dev": "cdrom"}]}})
    assert text.splitlines()[4:8] == [
        '    <type machine="q35">hvm</type>',
        '    <boot dev="hd"/>',
        '    <boot dev="cdrom"/>',
        "  </os>",
    ]
    assert text.splitlines()[-2:] == ["  <title>t</title>", "</domain>"]


def test_of_several_the_one_that_goes_takes_what_is_its_own():
    """Red when the values of the second are written over the first."""
    text = edited(SMALL, {"devices": {"disks": [None]}})
    assert understood(text)["devices"]["disks"] == [{"type": "file", "target": {"dev": "vdb"}}]
    assert "ua-second" in text and "ua-first" not in text
    text = edited(SMALL, {"devices": {"disks": [{}, {"readonly": True}, {"type": "block"}]}})
    assert [disk.get("readonly") for disk in understood(text)["devices"]["disks"]] == [None, True, None]
    assert lines(text)[-4:-2] == [
        "<disk type='file'><target dev='vdb'/><alias name='ua-second'/><readonly/></disk>".replace("'", '"'),
        '<disk type="block"/>',
    ]


def test_what_is_gone_already_can_be_taken_away_again():
    """Red when a worker that comes after a killed one cannot say again what was done."""
    gone = {"devices": {"watchdogs": [None], "disks": [{}, {}, None]}, "clock": {"offset": None}}
    assert edited(SMALL, gone) == edited(SMALL, {})
    both = edited(SMALL, {"devices": {"disks": [{}, {"readonly": True}, None]}})
    assert understood(both)["devices"]["disks"][1]["readonly"] and both.count("<disk") == 2
    once = edited(SMALL, {"devices": {"disks": [None, None]}})
    assert edited(once.encode(), {"devices": {"disks": [None, None]}}) == once


def test_a_size_keeps_its_unit_until_it_changes():
    text = SMALL.replace(b"<memory>1024", b"<memory unit='MiB' dumpCore='off'>1")
    assert '<memory unit="MiB" dumpCore="off">1</memory>' in edited(text, {"memory_bytes": 1 << 20})
    assert '<memory unit="KiB" dumpCore="off">2048</memory>' in edited(text, {"memory_bytes": 2 << 20})
    assert '<memory unit="bytes" dumpCore="off">1500</memory>' in edited(text, {"memory_bytes": 1500})
    assert "<memory>2048</memory>" in edited(SMALL, {"memory_bytes": 2 << 20})
    allocation = b"<volume><allocation unit='MiB'>1</allocation></volume>"
    assert edited(allocation, {"allocation_bytes": None}, Kind.VOLUME) == "<volume/>"


def test_names_are_added_and_taken_away():
    """Red when an element with something in it goes with its like."""
    content = sample("domain")
    text = edited(content, {"features": ["acpi", "hap"]})
    assert understood(text)["features"] == ["acpi", "hap"] and '<apic eoi="on"/>' in text
    assert "<pae/>" not in text
    assert understood(edited(SMALL, {"features": ["acpi"]}))["features"] == ["acpi"]
    twice = SMALL.replace(b"<os>", b"<features><apic/><apic eoi='on'/></features><os>")
    assert '<features><apic eoi="on"/></features>' in edited(twice, {"features": None})


def test_words_beside_what_goes_stay():
    """Red when an element takes the words behind it along, as lxml would."""
    content = sample("odd")
    text = edited(content, {"devices": {"disks": [None, None]}})
    assert etree.fromstring(text.encode()).xpath("string(devices)") == "strayastray"


@pytest.mark.parametrize(
    "change",
    [
        {"colour": "blue"},
        {"cpu": {"colour": "blue"}},
        {"memory_bytes": -1},
        {"memory_bytes": "much"},
        {"memory_bytes": 1 << 80},
        {"vcpus": "two"},
        {"vcpus": {"a": 1}},
        {"title": "a\0b"},
        {"title": "\x1b[2J"},
        {"title": ["a"]},
        {"features": ["no name"]},
        {"features": ["<x/>"]},
        {"name": None, "os": {"type": None}, "cpu": "host"},
        {"devices": {"disks": "all"}},
        {"devices": {"disks": [{"readonly": False}]}},
    ],
    ids=str,
)
def test_what_cannot_be_written_is_refused_whole(change):
    """Red when a value is written that would be read as another, or an error is none of ours."""
    with pytest.raises(InvalidSpec):
        edited(SMALL, change)


def test_a_refusal_names_the_place():
    with pytest.raises(InvalidSpec, match=r"cpu: topology: cores: 'many'"):
        edited(SMALL, {"cpu": {"topology": {"cores": "many"}}})


def test_hostile_words_stay_words():
    """Red when anything is put together as text."""
    text = edited(SMALL, {"title": "</title><on_crash>destroy</on_crash>", "os": {"machine": '"/><x a="'}})
    root = etree.fromstring(text)
    assert root.find("on_crash") is None and root.find("os/type").get("machine") == '"/><x a="'


@pytest.mark.parametrize(
    "change",
    [
        {"title": "t", "vcpus": 8, "memory_bytes": None},
        {"cpu": {"topology": {"cores": 4}}, "clock": {"timezone": "UTC"}},
        {"os": {"boot": [{"dev": "cdrom"}, {"dev": "hd"}]}},
        {"devices": {"watchdogs": [None], "disks": [{}, {"serial": "b"}]}},
        {"devices": {"sounds": [{"model": "ich9"}], "disks": [{}, {}, {}, {"type": "block"}]}},
        {"features": ["acpi"]},
    ],
    ids=str,
)
def test_a_change_can_be_taken_back(change):
    """Red when reverse() forgets what was not there before, or what was taken away."""
    before = inspect(Kind.DOMAIN, sample("domain")).understood
    there = edited(sample("domain"), change)
    assert understood(there) != before
    assert understood(edited(there.encode(), reverse(before, change))) == before


def test_differences_are_told_leaf_by_leaf():
    before = {"a": 1, "b": {"c": [{"d": 1}, {"d": 2}]}, "e": ["x"]}
    after = copy.deepcopy(before)
    after["b"]["c"] = [{"d": 1, "f": True}]
    after["g"] = "new"
    assert [(d.at, d.before, d.after) for d in differences(before, after)] == [
        (("b", "c", 0, "f"), None, True),
        (("b", "c", 1), {"d": 2}, None),
        (("g",), None, "new"),
    ]
    assert list(differences(after, after)) == []


@pytest.mark.parametrize(
    ("twins", "change"),
    [
        ("<devices><watchdog model='itco'/></devices>", {"devices": {"watchdogs": [{"action": "pause"}]}}),
        ("<devices/>", {"devices": {"disks": [None]}}),
        ("<os><boot dev='network'/></os>", {"os": {"boot": [{"dev": "hd"}]}}),
        ("<clock offset='utc'/><clock offset='localtime'/>", {"clock": {"offset": "variable"}}),
        ("<features/><features><pae/></features>", {"features": ["acpi"]}),
        ("<cpu/><cpu mode='custom'/>", {"cpu": {"topology": {"cores": 2}}}),
        ("<vcpu>1</vcpu><vcpu current='1'>2</vcpu>", {"current_vcpus": 1}),
    ],
)
def test_what_stands_there_twice_is_not_written_into(twins, change):
    """libvirt reads all of them, or the first alone: nobody says which is meant.

    Red when Field.put writes without looking whether the way is single.
    """
    text = SMALL.replace(b"</domain>", twins.encode() + b"</domain>")
    assert edited(text, {"title": "beside it"}).count("<title>") == 1
    with pytest.raises(InvalidSpec, match="there are 2 <"):
        edited(text, change)


def test_libvirt_reads_two_of_what_is_refused_as_one():
    """Red when libvirt comes to read only the first: then nothing of it had to be refused."""
    connection = libvirt.open("test:///default")
    two = SMALL.decode().replace("</domain>", "<devices><input type='tablet' bus='usb'/></devices></domain>")
    made = connection.defineXML(two.replace("type='file'>", "type='file'><source file='/a'/>"))
    written = made.XMLDesc()
    made.undefine()
    connection.close()
    assert written.count("<devices>") == 1 and "tablet" in written and "vda" in written


@pytest.mark.parametrize(
    "change",
    [
        {"memory_bytes": 2 << 20},
        {"title": "new"},
        {"devices": {"disks": [None, {}]}},
        {"devices": {"disks": [None, None]}},
        {"devices": {"disks": [{}, {"driver": {"cache": "none"}}]}},
        {"devices": {"disks": [None, {"target": {"dev": "vdc"}}, {"target": {"dev": "vdd"}}]}},
    ],
    ids=str,
)
def test_what_a_change_comes_to_is_told_before_and_recognised_after(change):
    """Red when outcome() counts what is taken away, or agrees() does not compare how many there are."""
    before = understood(SMALL.decode())
    wanted = outcome(before, change)
    assert not agrees(before, wanted)
    assert agrees(understood(edited(SMALL, change)), wanted)


def test_several_new_ones_stand_in_their_order_also_where_the_last_goes():
    """Red when a new one is put behind the last that was there alone, or behind one that was taken away."""
    more = [{"target": {"dev": dev}} for dev in ("vdc", "vdd", "vde")]
    made = edited(SMALL, {"devices": {"disks": [{}, None, *more]}})
    disks = understood(made)["devices"]["disks"]
    assert [disk["target"]["dev"] for disk in disks] == ["vda", "vdc", "vdd", "vde"]
    assert "ua-first" in made and "ua-second" not in made
