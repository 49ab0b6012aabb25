"""The bus of a disk and the model of a card: what a machine can have, and that all else survives."""

import pytest
from django.urls import reverse as url

from portal.core.errors import Denied
from portal.drivers.errors import CallTimeout, InvalidSpec
from portal.operations.models import Operation
from portal.operations.states import State
from tests.factories import GIB
from tests.vms.test_drives import change, disk
from tests.vms.test_moving import work
from tests.vms.test_rewiring import MAC, here, look  # noqa: F401 (here: a fixture)
from vms import noted
from vms.changes.devices import buses, cardmodels, nics
from vms.models import Observed, VirtualMachine

pytestmark = [pytest.mark.database, pytest.mark.django_db]
BUSES = ["virtio", "sata", "scsi", "fdc"]
ABLE = {"type": "qemu", "arch": "x86_64", "board": "q35", "disk_buses": BUSES}
SLOT = {"type": "pci", "domain": "0x0000", "bus": "0x05", "slot": "0x00", "function": "0x0"}


def hard(target, bus, **values):
    where = {"source": {"file": f"/pool/{target}.qcow2"}, "target": {"dev": target, "bus": bus}}
    return {"type": "file", "device": "disk", **where, **values}


@pytest.fixture
def machine(here):  # noqa: F811
    """The machine with a disk on virtio in a slot, which runs; its host said what it has."""
    host = here.machine.host
    host.readiness = {"abilities": [ABLE]}
    host.save()
    own = {"boot_order": 1, "serial": "own", "driver": {"name": "qemu", "type": "qcow2", "cache": "none"}}
    here.driver.destroy(here.uuid)
    change(here, {"devices": {"disks": [hard("vda", "virtio", address=SLOT, **own)]}, "os": {"boot": [None]}})
    change(here, {"devices": {"interfaces": [{"address": {**SLOT, "bus": "0x01"}, "mtu": 1400}]}})
    here.driver.start(here.uuid)
    look(here)
    place = host.pools.get()
    here.disk = here.machine.disks.create(pool=place, target="vda", volume_name="vda.qcow2", capacity=GIB)
    return here


def side(machine, name="observed_persistent", kind="disks", at=0):
    look(machine)
    return getattr(noted.of(machine.machine), name)["devices"][kind][at]


def set_bus(actor, machine, bus):
    return buses.set_bus(actor=actor, disk=machine.disk, bus=bus)


def set_model(actor, machine, model):
    return cardmodels.set_model(actor=actor, machine=machine.machine, mac=MAC, model=model)


def test_a_disk_comes_onto_another_bus_at_the_next_start_and_all_else_stays(cast, machine):
    """Red when parts of the old address stay, what runs is changed, or the place in the order goes."""
    before = side(machine)
    begun = set_bus(cast.requester, machine, "sata")
    assert begun.frozen["pinned"]["settings"] == [["Bus of vda", "virtio", "sata"]]
    assert work(begun).state == State.SUCCEEDED
    address = {"type": "drive", "controller": "0", "bus": "0", "target": "0", "unit": "5"}
    assert side(machine) == {**before, "target": {"dev": "vda", "bus": "sata"}, "address": address}
    assert side(machine, "observed_running") == before
    assert buses.waits(machine.disk, noted.of(machine.machine))
    assert work(set_bus(cast.requester, machine, "virtio")).state == State.SUCCEEDED
    # The slot is libvirt's to choose, and the fake chooses none.
    assert side(machine) == {name: value for name, value in before.items() if name != "address"}


def test_a_disk_stands_in_no_place_that_is_taken(cast, machine):
    places = [place for place in range(6) if place != 3]
    for count, place in enumerate(places, start=1):
        change(machine, {"devices": {"disks": [*[{}] * count, disk(f"sd{'abcdef'[place]}", "sata", place)]}})
    work(set_bus(cast.requester, machine, "sata"))
    assert side(machine)["address"]["unit"] == "3"
    work(set_bus(cast.requester, machine, "virtio"))
    change(machine, {"devices": {"disks": [{}] * 6 + [disk("sdd", "sata", 3)]}})
    with pytest.raises(Denied, match="Each place of this bus is taken") as denied:
        set_bus(cast.requester, machine, "sata")
    assert denied.value.field == "bus"


def test_a_late_answer_is_taken_back_whole(cast, machine):
    """Red when the undo leaves parts of the new address beside the old one, or the old bus alone."""
    before, done = side(machine), machine.driver.redefine

    def late(*args):
        machine.driver.redefine = done
        done(*args)
        raise CallTimeout("too long")

    machine.driver.redefine = late
    assert work(set_bus(cast.requester, machine, "sata")).state == State.FAILED
    assert side(machine) == before
    before = side(machine, kind="interfaces")
    machine.driver.redefine = late
    assert work(set_model(cast.requester, machine, "rtl8139")).state == State.FAILED
    assert side(machine, kind="interfaces") == before


def test_what_is_taken_back_stands_elsewhere_when_its_slot_is_taken(cast, machine):
    """Red when the undo insists on the slot: libvirt puts the bridge there that older models need."""
    before, done = side(machine, kind="interfaces"), machine.driver.redefine

    def taken(uuid, wanted, digest):
        if (wanted["devices"]["interfaces"][0].get("address") or {}).get("slot"):
            raise InvalidSpec("XML error: Attempted double use of PCI Address 0000:01:00.0")
        made = done(uuid, wanted, digest)
        if wanted["devices"]["interfaces"][0]["model"] == "e1000":
            raise CallTimeout("too long")
        return made

    machine.driver.redefine = taken
    assert work(set_model(cast.requester, machine, "e1000")).state == State.FAILED
    left = {name: value for name, value in before.items() if name != "address"}
    assert side(machine, kind="interfaces") == left


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        ("ide", "cannot have the disk on that bus"),
        ("usb", "cannot have the disk on that bus"),
        ("", "cannot have the disk on that bus"),
    ],
)
def test_a_bus_that_the_machine_does_not_have_is_refused(cast, machine, wanted, why):
    """Red when the board or the host's word is not looked at."""
    with pytest.raises(Denied, match=why) as denied:
        set_bus(cast.requester, machine, wanted)
    assert denied.value.field == "bus" and not Operation.objects.filter(kind=buses.BUS).exists()


def test_scsi_needs_a_controller_and_every_bus_the_hosts_word(cast, machine):
    names = [name for name, _word in buses.choices(machine.machine, machine.disk, noted.of(machine.machine))]
    assert names == ["scsi", "sata"]
    seen = noted.of(machine.machine)
    seen.observed_persistent["devices"]["controllers"] = []
    seen.save()
    with pytest.raises(Denied, match="cannot have the disk on that bus"):
        set_bus(cast.requester, machine, "scsi")
    host = machine.machine.host
    for readiness, why in (
        ({"abilities": [{**ABLE, "disk_buses": ["virtio"]}]}, "cannot have the disk on that bus"),
        ({"abilities": [{**ABLE, "disk_buses": []}]}, "not told which buses"),
        ({}, "has not told what it can give"),
    ):
        host.readiness = readiness
        host.save()
        with pytest.raises(Denied, match=why):
            set_bus(cast.requester, machine, "sata")


@pytest.mark.parametrize(
    ("kept", "values", "why"),
    [
        ("disks", {"device": "lun"}, "of the kind lun virtio"),
        ("disks", {"target": {"dev": "vda", "bus": "usb"}}, "of the kind disk usb"),
        ("disks", {"target": {"dev": "vdz", "bus": "virtio"}}, "has this disk no more"),
    ],
)
def test_a_disk_of_a_kind_that_the_portal_does_not_know_stays(cast, machine, kept, values, why):
    change(machine, {"devices": {kept: [values]}})
    with pytest.raises(Denied, match=why):
        set_bus(cast.requester, machine, "sata")


@pytest.mark.parametrize("values", [{"type": "xen"}, {"os": {"machine": "virt-7.2"}}])
def test_a_machine_of_another_kind_stays_as_it_is(cast, machine, values):
    """Red when the controllers of a PC are taken for those of every machine."""
    seen = noted.of(machine.machine)
    seen.observed_persistent["os"].update(values.get("os", {}))
    seen.observed_persistent["type"] = values.get("type", "qemu")
    seen.save()
    for call in set_bus, set_model:
        with pytest.raises(Denied, match="whose devices the portal leaves as they are"):
            call(cast.requester, machine, "sata")


def test_the_disk_that_it_starts_from_stays_the_first(cast, machine):
    """Red when libvirt's order is not looked at: it lists the disks of a bus by their names."""
    disks = [{"target": {"dev": "vdb", "bus": "virtio"}, "boot_order": None}, hard("vda", "sata")]
    change(machine, {"devices": {"disks": disks}, "os": {"boot": [{"dev": "hd"}]}})
    machine.disk.target = "vdb"
    machine.disk.save()
    with pytest.raises(Denied, match="Another disk would come first") as denied:
        set_bus(cast.requester, machine, "sata")
    assert denied.value.field == "bus"
    assert set_bus(cast.requester, machine, "scsi").state == State.QUEUED


def test_disks_are_in_libvirts_order():
    found = [hard("vdb", "virtio"), hard("sdb", "sata"), hard("vda", "virtio"), hard("vdaa", "sata")]
    assert buses.in_libvirts_order(found) == ["vda", "vdb", "sdb", "vdaa"]


def test_a_card_becomes_of_another_model_at_the_next_start_and_all_else_stays(cast, machine):
    """Red when a card leaves a slot that fits, keeps one that does not, or what runs is changed."""
    before = side(machine, kind="interfaces")
    assert before["model"] == "virtio"
    assert work(set_model(cast.requester, machine, "e1000e")).state == State.SUCCEEDED
    assert side(machine, kind="interfaces") == {**before, "model": "e1000e"}
    assert side(machine, "observed_running", "interfaces") == before
    port = nics.cards_of(machine.machine)[0].port
    assert cardmodels.waits(port, noted.of(machine.machine))
    assert work(set_model(cast.requester, machine, "e1000")).state == State.SUCCEEDED
    left = {name: value for name, value in before.items() if name != "address"}
    assert side(machine, kind="interfaces") == {**left, "model": "e1000"}


@pytest.mark.parametrize("model", ["ne2k_pci", "", "<&>"])
def test_a_model_that_is_no_choice_is_refused(cast, machine, model):
    with pytest.raises(Denied, match="cannot have a card of that model") as denied:
        set_model(cast.requester, machine, model)
    assert denied.value.field == "model"


def test_a_card_of_another_kind_keeps_its_model(cast, machine):
    change(machine, {"devices": {"interfaces": [{"type": "hostdev"}]}})
    with pytest.raises(Denied, match="of the kind hostdev"):
        set_model(cast.requester, machine, "e1000e")


@pytest.mark.parametrize("who", ["approver", "auditor"])
def test_who_may_not_use_a_machine_changes_neither(cast, machine, who):
    for call, value in ((set_bus, "sata"), (set_model, "e1000e")):
        with pytest.raises(Denied, match="Only the owner, an operator or an admin"):
            call(getattr(cast, who), machine, value)


def test_the_pages_warn_and_begin_it(client, cast, machine):
    client.force_login(cast.requester)
    page, there = (url(name, args=[machine.machine.pk, "vda"]) for name in ("vms:disk", "vms:disk_bus"))
    text = client.get(page).content.decode()
    assert "without a driver for the bus" in text and "when it was switched off and is started" in text

    def post(**values):
        return client.post(there, {**values, "seen": client.get(page).context["carried"]}, follow=True)

    assert "cannot have the disk" in post(bus="fdc").content.decode()
    assert "it is so already" in post(bus="virtio").content.decode()
    post(bus="sata")
    assert work(Operation.objects.get(kind=buses.BUS)).state == State.SUCCEEDED
    text = client.get(page).content.decode()
    assert "At the next start" in text and "<code>sata</code>" in text
    page, there = (url(name, args=[machine.machine.pk, MAC]) for name in ("vms:card", "vms:card_model"))
    assert "without a driver for the model" in client.get(page).content.decode()
    assert "cannot have a card" in post(model="x").content.decode()
    assert "it is so already" in post(model="virtio").content.decode()
    post(model="e1000e")
    assert work(Operation.objects.get(kind=cardmodels.MODEL)).state == State.SUCCEEDED
    VirtualMachine.objects.update(observed_state=Observed.SHUTOFF)
    assert "from its start on" in client.get(page).content.decode()
