"""What libvirt cannot do with machines of Xen and LXC: pages do not offer it, and services refuse it."""

import re
import uuid
from types import SimpleNamespace

import pytest
from django.urls import reverse as url
from django.utils import timezone

from networks.models import Port
from portal.core.errors import Denied
from portal.drivers.domainkinds import LACKED
from portal.drivers.types import BANDWIDTH, LIMITS, DomainDefinition, DomainFeature
from portal.hosts.models import PoolAttachment, StoragePool
from portal.operations.models import Operation
from tests.factories import GIB, make_catalogue, make_host, make_machine, make_network, make_place
from tests.vms.test_settings import READINESS
from vms import editing, hypervisors, noted, power
from vms.changes import disks, moving
from vms.changes.devices import bandwidth, limits, nics, rewiring
from vms.models import Observed

pytestmark = [pytest.mark.database, pytest.mark.django_db]
MAC = "52:54:00:00:00:09"
#: As somebody made it; the bus and the model are Xen's.
TEXT = """<domain type="{kind}"><name>n</name><uuid>{uuid}</uuid><memory>1048576</memory><vcpu>2</vcpu>
<os><type arch="x86_64" machine="{machine}">hvm</type><boot dev="hd"/></os><devices>
<disk type="file" device="disk"><driver name="qemu" type="qcow2"/><source file="/first/v.qcow2"/>
<target dev="vda" bus="virtio"/></disk>
<interface type="network"><mac address="52:54:00:00:00:09"/><source network="net"/></interface>
</devices></domain>"""
MACHINES = {"xen": "xenfv", "kvm": "pc-q35-7.2"}


@pytest.fixture
def here(cast):
    """A machine that runs, with a disk and a card of the portal, and `become` for what it is."""
    host = make_host(readiness=READINESS)
    place = make_place(host, "first", "/first")
    other = StoragePool.objects.create(name="second")
    to = PoolAttachment.objects.create(host=host, pool=other, path="/second", observed_available=9 * GIB)
    image, home, away = place.images.get().image, make_network(77), make_network(78)
    make_catalogue(image, home).item.networks.add(away)
    machine = make_machine(cast, "example", host, image, item_name="Tiny", observed_state=Observed.RUNNING)
    disk = machine.disks.create(pool=place, volume_name="v.qcow2", capacity=GIB)
    Port.objects.create(network=home, host=host, domain_uuid=machine.uuid, mac=MAC)
    found = SimpleNamespace(machine=machine, disk=disk, to=to, away=away, who=cast.operator)

    def become(kind):
        names = {"kind": kind, "uuid": machine.uuid, "machine": MACHINES.get(kind, "")}
        told = TEXT.format(**names)
        noted.note(host.pk, str(machine.uuid), DomainDefinition(told, told), timezone.now())
        return found

    found.become = become
    return found


def limit(here):
    none = dict.fromkeys(LIMITS, 0)
    wanted = {**none, "total_iops_sec": 5}
    return limits.limit_disk(actor=here.who, disk=here.disk, limits=wanted, seen=none)


def limit_card(here):
    none = dict.fromkeys(BANDWIDTH, 0)
    wanted = {**none, "inbound_average": 5}
    return bandwidth.limit_card(actor=here.who, machine=here.machine, mac=MAC, limits=wanted, seen=none)


def grow(here):
    told = {"capacity": 2 * GIB, "seen": GIB, "why": "work", "token": uuid.uuid4()}
    return disks.request_growth(actor=here.who, disk=here.disk, **told)


def add_disk(here):
    told = {"capacity": GIB, "why": "work", "token": uuid.uuid4()}
    return disks.request_disk(actor=here.who, machine=here.machine, **told)


def setting(name, value):
    def change(here):
        digest = noted.of(here.machine).observed_digest
        return editing.edit_machine(
            actor=here.who, machine=here.machine, values={name: value}, digest=digest
        )

    return change


CHANGES = {
    "add a disk": add_disk,
    "grow": grow,
    "limit": limit,
    "limit a card": limit_card,
    "move": lambda here: moving.move_disk(actor=here.who, disk=here.disk, to=here.to),
    "add a card": lambda here: nics.add_card(actor=here.who, machine=here.machine, network=here.away),
    "rewire": lambda here: rewiring.rewire_card(
        actor=here.who, machine=here.machine, mac=MAC, network=here.away
    ),
    "link": lambda here: nics.set_link(actor=here.who, machine=here.machine, mac=MAC, up=False),
    "save": lambda here: power.act(actor=here.who, machine=here.machine, verb="save"),
    "watchdog": setting("watchdog", "reset"),
    "cache": setting("cache", "none"),
    "trim": setting("trim", "on"),
    "order": setting("order", "disk:vda"),
    "topology": setting("topology", "1x2x1"),
    "agent": setting("agent", "on"),
}
#: What each cannot, and a word of the sentence.
REFUSED = {
    "xen": {name: "Xen" for name in CHANGES if name not in {"save", "trim"}},
    "lxc": dict.fromkeys(CHANGES, "LXC"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", ["kvm", "xen", "lxc"])
def test_a_service_refuses_what_the_hypervisor_cannot(here, kind, change):
    """Red when the line of a type lacks a feature, or the service of a change does not look there."""
    here.become(kind)
    word, before = REFUSED.get(kind, {}).get(change), Operation.objects.count()
    if word is None:
        assert CHANGES[change](here) is not None and Operation.objects.count() == before + 1
        return
    with pytest.raises(Denied, match=word):
        CHANGES[change](here)
    assert Operation.objects.count() == before


def buttons(client, name, *args):
    """Return the buttons of a page by their words: True for one that can be pressed."""
    text = client.get(url(f"vms:{name}", args=args)).content.decode()
    found = re.findall(r"<button([^>]*)>\s*(?:<svg.*?</svg>)?\s*([^<]*?)\s*</button>", text, re.DOTALL)
    return {words: "disabled" not in attributes for attributes, words in found if words}, text


@pytest.mark.parametrize("kind", ["kvm", "xen"])
def test_pages_offer_what_the_hypervisor_can(client, here, kind):
    """Red when a page gives its form another reason than the service, or none."""
    here.become(kind)
    pk, can = here.machine.pk, kind == "kvm"
    client.force_login(here.who)
    found, text = buttons(client, "disk", pk, "vda")
    assert (found["Set the limits"], found["Ask for this size"], found["Move the disk"]) == (can, can, can)
    assert ("libvirt cannot do this with machines of Xen." in text) != can
    found, text = buttons(client, "disk_add", pk)
    assert found["Ask for this disk"] == can and ("comes while the machine runs" in text) == can
    found, text = buttons(client, "cards", pk)
    assert found["Add the card"] == can and ("comes at once" in text) == can
    found, _text = buttons(client, "card", pk, MAC)
    assert found["Pull the cable"] == found["Change the network"] == found["Set the limits"] == can
    assert found["Remove the card"]
    form = client.get(url("vms:settings", args=[pk])).context["form"]
    never = {"watchdog", "cache", "topology", "agent"}
    assert never & form.fields.keys() == (never if can else set()) and "trim" in form.fields
    assert "Suspend to disk" in client.get(url("vms:detail", args=[pk])).content.decode()


def test_what_is_lacked_only_while_a_machine_runs(here):
    """Red when an LXC machine that is off counts as one that runs, or the other way round."""
    found = noted.of(here.become("lxc").machine)
    assert "while the machine runs" in hypervisors.why_not_seen(found, DomainFeature.CHANGE_CARD_HOT)
    found.observed_running = None
    assert hypervisors.why_not_seen(found, DomainFeature.CHANGE_CARD_HOT) == ""
    assert "LXC" in hypervisors.why_not_seen(found, DomainFeature.LIMIT_DISK)


def test_of_qemu_nothing_is_lacked():
    """Red when QEMU gets a line: its own emulator says what it can (`abilities`)."""
    assert LACKED.keys() == {"xen", "lxc"}
