"""Whatever nobody here understands survives every change of a definition that somebody else made.

Unknown things are planted into every element of a definition before it is changed, and looked for afterwards
byte by byte, in canonical form, where they stood.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from lxml import etree

from portal.drivers.editing import Edit
from portal.drivers.inspection import Kind, inspect, reverse
from portal.drivers.libvirt.xml import places, traces, twin
from portal.drivers.types import BANDWIDTH, LIMITS, TwinSpec
from tests.vms.test_settings import READINESS, definition
from vms import settings
from vms.changes import resizing

RICH = (Path(__file__).parents[1] / "data/foreign/domain.xml").read_bytes()
OWN = "urn:example:tomorrow"
MARK = f"{{{OWN}}}mark"


def planted(text: bytes) -> bytes:
    """Put an attribute, a comment and an element of nobody's into every element that has no words."""
    root = etree.fromstring(text)
    etree.cleanup_namespaces(root, top_nsmap={"u": OWN}, keep_ns_prefixes=["u"])
    for number, element in enumerate([one for one in root.iter() if isinstance(one.tag, str)]):
        element.set(MARK, str(number))
        if len(element) or not (element.text or "").strip():
            element.append(etree.Comment(f" of {number} "))
            left = etree.SubElement(element, f"{{{OWN}}}left", number=str(number))
            left.text = f"words & of {number}"
            left.append(etree.Comment("inside"))
            etree.SubElement(left, "plain").tail = "behind"
    return etree.tostring(root)


def canonical(node: etree._Element) -> str:
    if node.tag is etree.Comment:
        return f"<!--{node.text}-->"
    return ET.canonicalize(etree.tostring(node, with_tail=False, encoding="unicode"), with_comments=True)


def strange(text: str | bytes) -> dict[str, list[str]]:
    """Return what was planted, by the number of the element in which it stands."""
    root = etree.fromstring(text.encode() if isinstance(text, str) else text)
    found: dict[str, list[str]] = {}
    for element in root.iter():
        if not isinstance(element.tag, str) or element.get(MARK) is None:
            continue
        way = "/".join([*(str(one.tag) for one in reversed(list(element.iterancestors()))), str(element.tag)])
        inner = [canonical(one) for one in element if one.tag is etree.Comment or one.tag == f"{{{OWN}}}left"]
        found[element.get(MARK)] = [way, *inner]
    return found


def gone(before: bytes, after: str) -> set[str]:
    """Return which elements are gone with all that was in them; whatever else is strange is as it was.

    Each is told by its way, and once: not what lay in it.
    """
    was, now = strange(before), strange(after)
    lost = {number for number in was if number not in now}
    assert {number: now[number] for number in now} == {number: was[number] for number in was if number in now}
    ways = {was[number][0] for number in lost}
    return {way for way in ways if not any(way.startswith(f"{other}/") for other in ways)}


TEXTS = {"theirs": planted(RICH), "ours": planted(definition().encode())}
#: Of the settings, what takes an element away with all that is in it: it was that which was asked for.
TAKES = {
    ("tpm", "absent"): "domain/devices/tpm",
    ("agent", "off"): "domain/devices/channel",
    ("watchdog", "absent"): "domain/devices/watchdog",
    ("topology", "flat"): "domain/cpu/topology",
    ("order", "disk:vda"): "domain/os/boot",
}


def understood(text: bytes | str) -> dict[str, Any]:
    return inspect(Kind.DOMAIN, text.encode() if isinstance(text, str) else text).understood


def ground(text: bytes) -> settings.Ground:
    [able] = READINESS["abilities"]
    theirs = {**able, "type": "test", "videos": ("qxl", "vga")}
    return settings.ground_of(understood(text), {**READINESS, "abilities": [able, theirs]})


def edits() -> Iterator[Any]:
    """Yield every change that the tables of editing offer, with what it may take away."""
    for whose, text in TEXTS.items():
        on = ground(text)
        for one in settings.SETTINGS:
            if one.fixed(on):
                continue
            values = ["new\nwords"] if one.choices is None else [value for value, _label in one.choices(on)]
            for value in values if one.name != "order" else ["disk:vda"]:
                patch, takes = settings.patch_of(on, {one.name: value}), TAKES.get((one.name, value), "")
                yield pytest.param(text, patch, takes, id=f"{whose}-{one.name}-{value!r}")
        for vcpus in (1, 2, 3):
            sizes = {"vcpu": vcpus, "memory": 4 << 30, "memory_now": 1 << 30}
            yield pytest.param(text, resizing.change_to(on.defined, sizes), "", id=f"{whose}-size-{vcpus}")
        there = [{} for _one in on.defined["devices"].get("host_devices", ())]
        usb = {"mode": "subsystem", "type": "usb", "usb": {"vendor": "0x1", "product": "0x2"}}
        yield pytest.param(text, {"devices": {"host_devices": [*there, usb]}}, "", id=f"{whose}-give")
        if there:
            taken = {"devices": {"host_devices": [None, *there[1:]]}}
            yield pytest.param(text, taken, "domain/devices/hostdev", id=f"{whose}-take")


@pytest.mark.parametrize(("text", "patch", "takes"), list(edits()))
def test_what_nobody_understands_survives_every_edit_and_its_way_back(text, patch, takes):
    """Red when an edit writes an element anew, or drops an attribute, a comment or a namespace beside it."""
    edit = Edit(text.decode(), patch)
    missing = gone(text, edit.wanted)
    assert missing == ({takes} if takes and not edit.is_done else set())
    # Of what was taken away whole only what was understood comes back.
    if not missing:
        back = Edit(edit.wanted, reverse(understood(text), patch))
        assert gone(edit.wanted.encode(), back.wanted) == set()
        assert understood(back.wanted) == understood(text)


def test_the_planted_things_are_many_and_everywhere():
    """Red when nothing is planted any more, and so nothing can be missed."""
    for text, least in ((TEXTS["theirs"], 100), (TEXTS["ours"], 40)):
        found = strange(text)
        assert len(found) >= least and sum(len(inner) > 2 for inner in found.values()) > least / 3
    theirs = TEXTS["theirs"].decode()
    assert "qemu:commandline" in theirs and "urn:example:app" in theirs


def beside(text: bytes | str) -> list[str]:
    """Return in canonical form what a definition has that is none of the portal's business."""
    root = etree.fromstring(text.encode() if isinstance(text, str) else text)
    ways = ("metadata", "resource", "seclabel", "devices/gizmo", "devices/serial", "{*}commandline")
    return [canonical(one) for way in ways for one in root.findall(way)]


def test_what_others_wrote_beside_survives_byte_for_byte():
    """Red when an edit serialises anew what it does not touch: prefixes, or the emulator's arguments."""
    before = beside(RICH)
    assert len(before) == 6
    for text, patch, _takes in (one.values for one in edits()):
        if text is TEXTS["theirs"]:
            assert beside(Edit(RICH.decode(), patch).wanted) == before


def test_notes_of_what_was_left_touch_nothing_else():
    """Red when the notes in the metadata are written by making the metadata anew."""
    text = TEXTS["theirs"].decode().replace('firmware="left"', 'firmware="fresh"')
    assert traces.is_fresh(text) and gone(text.encode(), traces.started(text)) == set()
    left = list(traces.naming_what_is_left(TEXTS["theirs"].decode()))
    assert len(left) == 2 and [gone(TEXTS["theirs"], one) for one in left] == [set(), set()]


def test_a_twin_has_all_that_is_not_its_originals_alone():
    """Red when a twin is made of what is understood."""
    text = TEXTS["ours"]
    paths = {drive["source"]["file"]: f"/twin{number}" for number, drive in enumerate(_with_files(text))}
    macs = {card["mac"]: "52:54:00:00:00:99" for card in understood(text)["devices"]["interfaces"]}
    spec = TwinSpec("twin", "22222222-2222-4333-8444-555555555555", "", paths=paths, macs=macs)
    assert gone(text, twin.twin_of(text.decode(), spec)) == set()


def _with_files(text: bytes) -> list[Any]:
    return [disk for disk in understood(text)["devices"]["disks"] if disk.get("source", {}).get("file")]


def link(device):
    places.set_link(device, not places.is_linked(device))


def medium(device):
    places.set_medium(device, "/other.iso")


def limits(device):
    places.set_limits(device, dict.fromkeys(LIMITS, 7))


def bandwidth(device):
    places.set_bandwidth(device, {name: 7 for name in BANDWIDTH} | {"outbound_peak": 0})


def freed(device):
    places.set_bandwidth(device, dict.fromkeys(BANDWIDTH, 0))


def file(device):
    places.set_file(device, "/other.qcow2")


@pytest.mark.parametrize(
    ("find", "change", "takes"),
    [
        (lambda root: places.card_with(root, "52:54:00:00:00:07"), link, {"link"}),
        (lambda root: places.drive_at(root, "sda"), medium, set()),
        (lambda root: places.disk_at(root, "vda"), limits, set()),
        (lambda root: places.card_with(root, "52:54:00:00:00:07"), bandwidth, set()),
        (lambda root: places.card_with(root, "52:54:00:00:00:07"), freed, set()),
        (lambda root: places.disk_at(root, "vda"), file, {"source", "backingStore"}),
    ],
    ids=["link", "medium", "limits", "bandwidth", "freed", "file"],
)
def test_a_device_that_is_changed_while_it_runs_goes_back_as_it_came(find, change, takes):
    """Red when a part of a device is made anew that the change is not about. libvirt keeps no comments."""
    device = find(ET.fromstring(TEXTS["theirs"]))
    before = {part.tag: ET.canonicalize(ET.tostring(part)) for part in device if part.tag not in takes}
    own = dict(device.attrib)
    change(device)
    after = {part.tag: ET.canonicalize(ET.tostring(part)) for part in device}
    written = {"source", "iotune", "driver", "bandwidth"} if change is not link else set()
    for tag, part in before.items():
        assert after[tag] == part or (tag in written and OWN in after[tag]), tag
    assert own.items() <= device.attrib.items()
