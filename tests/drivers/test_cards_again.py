"""A card that a domain had, written for it to have again. What hypervisors make of it, the contract shows."""

import pytest

from portal.drivers.errors import AlreadyExists, InvalidSpec
from portal.drivers.inspection import Kind, inspect
from portal.drivers.libvirt.xml.build import parse
from portal.drivers.libvirt.xml.interface import lacking
from portal.drivers.types import CardWas, DeviceModel, NicSpec

MAC = "52:54:00:00:00:01"
SPEC = NicSpec(MAC, "one")
PCI = "<address type='pci' domain='0x0000' bus='0x07' slot='0x00' function='0x0'/>"
#: As libvirt prints one that runs.
RUNNING = f"""
<interface type='bridge'>
  <mac address='{MAC}'/>
  <source network='one' portid='11111111-2222-4333-8444-555555555555' bridge='br1'/>
  <bandwidth><inbound average='1000' peak='2000' burst='64'/></bandwidth>
  <target dev='vnet3'/>
  <model type='e1000e'/>
  <driver name='vhost' queues='4'/>
  <coalesce><rx><frames max='7'/></rx></coalesce>
  <boot order='2'/>
  <alias name='net0'/>
  {PCI}
</interface>"""


def domain(devices="", system=""):
    return parse(f"<domain><os>{system}</os><devices>{devices}</devices></domain>")


def understood(text):
    [card] = inspect(Kind.DOMAIN, f"<domain><devices>{text}</devices></domain>".encode()).understood[
        "devices"
    ]["interfaces"]
    return card


def again(on, told, *, beside=None):
    """Return the card that `on` lacks, where it was as `told`, and another side has it as `beside`."""
    sides = {"one": on, **({"other": beside} if beside is not None else {})}
    [(side, text)] = lacking(sides, SPEC, DeviceModel.PARAVIRTUAL, CardWas(told, None), "one")
    assert side == "one"
    return parse(text)


def test_what_another_side_has_of_it_comes_along_though_nobody_understands_it():
    """Red when `next(iter(there), None)` is None: its queues and what else is unknown would be lost."""
    card = again(domain(), understood(RUNNING), beside=domain(RUNNING))
    assert card.find("driver").attrib == {"name": "vhost", "queues": "4"}
    assert card.find("coalesce/rx/frames").get("max") == "7"
    assert card.find("model").get("type") == "e1000e" and card.find("boot").get("order") == "2"
    assert card.find("bandwidth/inbound").attrib == {"average": "1000", "peak": "2000", "burst": "64"}
    assert card.find("address").get("bus") == "0x07"


def test_what_only_a_run_of_it_had_stays_behind():
    """Red when `if (place := place_of(card)) is not None` is `if False`: its port's ID would come back."""
    card = again(domain(), understood(RUNNING), beside=domain(RUNNING))
    assert (card.get("type"), card.find("source").attrib) == ("network", {"network": "one"})
    assert card.find("target") is None


def test_it_is_as_it_was_told_and_not_as_the_other_side_has_it():
    """Red when _instead() returns `wanted` alone: what the other side has beyond it would stay."""
    other = RUNNING.replace("e1000e", "virtio").replace("<inbound ", "<outbound average='9'/><inbound ")
    card = again(domain(), understood(RUNNING), beside=domain(other))
    assert card.find("model").get("type") == "e1000e"
    assert card.find("bandwidth/outbound") is None


@pytest.mark.parametrize(
    ("devices", "system", "lost"),
    [
        (f"<disk>{PCI}</disk>", "", "address"),
        ("<disk><boot order='2'/></disk>", "", "boot"),
        ("", "<boot dev='hd'/>", "boot"),
        ("<hostdev><source><address domain='0x0000' bus='0x07'/></source></hostdev>", "", ""),
    ],
    ids=["slot", "order", "kinds", "host"],
)
def test_what_another_device_has_by_now_is_left_to_it(devices, system, lost):
    """Red when _is_taken() says False: the hypervisor would refuse the card, and it were gone for good."""
    card = again(domain(devices, system), understood(RUNNING))
    there = {name for name in ("address", "boot") if card.find(name) is not None}
    assert {"address", "boot"} - there == ({lost} if lost else set())


def test_another_card_is_not_taken_for_it():
    with pytest.raises(InvalidSpec):
        again(domain(), {**understood(RUNNING), "mac": "52:54:00:00:00:02"})
    elsewhere = domain(RUNNING.replace("network='one'", "network='two'"))
    with pytest.raises(AlreadyExists):
        again(domain(), understood(RUNNING), beside=elsewhere)


def test_a_card_on_a_bridge_comes_back_to_its_bridge():
    """Red when `on` is an empty set: a card that others made is on no network of the portal's."""
    bridged = RUNNING.replace("network='one' portid='11111111-2222-4333-8444-555555555555' ", "")
    card = again(domain(), understood(bridged), beside=domain(bridged))
    assert (card.get("type"), card.find("source").attrib) == ("bridge", {"bridge": "br1"})
