"""How a machine is asked to run: what is offered, frozen, placed and handed to the driver."""

import uuid

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils.html import escape

from portal.core.errors import Denied
from portal.drivers.types import Accelerator, CloneMode, DeviceModel
from portal.hosts.models import Health, Host, Image, ImageAttachment
from portal.operations.registry import StepContext, kind_of
from portal.operations.services import decide
from portal.operations.states import State
from tests.factories import make_catalogue, make_host, make_image, make_network, make_place, make_wish
from vms import specs
from vms.models import CatalogueItem, VirtualMachine
from vms.offers import offer, offers
from vms.services import request_machine
from vms.virtualization import HELP, Wanted, words

pytestmark = [pytest.mark.database, pytest.mark.django_db]
BOTH = ["paravirtual", "emulated"]


@pytest.fixture
def catalogue(db):
    """An item that may be asked for in every way, on one host that emulates."""
    image = make_image(device_models=BOTH)
    make_place(make_host(), image=image)
    made = make_catalogue(image, make_network())
    made.item.device_models, made.item.accelerators = BOTH, Wanted.values
    made.item.save()
    return made


def ask(cast, catalogue, **changes):
    wish = make_wish(catalogue, **changes)
    return request_machine(actor=cast.requester, project=cast.project, wish=wish, token=uuid.uuid4())


def approve(cast, operation):
    decide(actor=cast.approver, operation=operation, spec_hash=operation.spec_hash, approved=True)
    operation.refresh_from_db()
    return operation


def domain_of(operation):
    context = StepContext(operation.frozen, operation.identifiers, lambda: None)
    return specs.domain_spec(context)


def test_the_choice_is_frozen_and_reaches_the_driver(cast, catalogue):
    """Red when domain_spec leaves out the devices, or placement the disk's name."""
    operation = ask(cast, catalogue, devices="emulated", accelerator="qemu")
    assert operation.frozen["pinned"]["virtualization"] == {"accelerator": "qemu", "devices": "emulated"}
    domain = domain_of(approve(cast, operation))
    assert (domain.devices, domain.accelerator) == (DeviceModel.EMULATED, Accelerator.EMULATION)
    machine = VirtualMachine.objects.get()
    assert machine.virtualization == "Full virtualization in software"
    assert domain.disks[0].target == machine.disks.get().target == "sda"


def test_who_decides_reads_how_it_would_run(client, cast, catalogue):
    """Red when facts() leaves it out."""
    operation = ask(cast, catalogue, devices="emulated", accelerator="qemu")
    client.force_login(cast.approver)
    page = client.get(reverse("operations:detail", args=[operation.pk])).content.decode()
    assert "<dd>Full virtualization: as of a real computer</dd>" in page
    assert "<dd>Emulated in software only</dd>" in page


def test_without_a_choice_the_defaults_count(cast, catalogue):
    domain = domain_of(approve(cast, ask(cast, catalogue)))
    assert (domain.devices, domain.disks[0].target) == (DeviceModel.PARAVIRTUAL, "vda")


def test_a_request_from_before_the_choice_is_built_as_before(cast, catalogue):
    """Red when virtualization.pinned takes the key for granted."""
    operation = approve(cast, ask(cast, catalogue))
    old = operation.frozen
    del old["pinned"]["virtualization"]
    names = {name: value for name, value in operation.identifiers.items() if name != "target"}
    domain = specs.domain_spec(StepContext(old, names, lambda: None))
    assert (domain.devices, domain.disks[0].target) == (DeviceModel.PARAVIRTUAL, "vda")


def test_only_a_host_that_was_proven_to_give_it_is_chosen(cast, catalogue):
    """Red when candidates() does not ask for what the host was proven by."""
    operation = ask(cast, catalogue, accelerator="kvm")
    with pytest.raises(Denied, match="proven to run it as asked"):
        approve(cast, operation)
    assert operation.__class__.objects.get().state == State.AWAITING_APPROVAL
    strong = make_host("strong", "fake://strong/", accelerator="kvm")
    make_place(strong, "strong", image=catalogue.item.image)
    approve(cast, operation)
    machine = VirtualMachine.objects.get()
    assert (machine.host, machine.accelerator) == (strong, "kvm")


@pytest.mark.parametrize(
    "change", [{"observed_health": Health.STALE}, {"observed_health": Health.NEW}, {"maintenance": True}]
)
def test_a_host_that_is_away_or_in_maintenance_takes_no_machine(cast, catalogue, change):
    """Red when places_of() leaves out the health, or the maintenance."""
    operation = ask(cast, catalogue)
    Host.objects.update(**change)
    [outlook] = kind_of(operation.kind).asking.outlooks([operation]).values()
    assert outlook.place == ""
    assert outlook.warnings[0].startswith("No host that is up and not in maintenance has its image")
    with pytest.raises(Denied, match="No host can take this machine now"):
        approve(cast, operation)
    assert not VirtualMachine.objects.exists()
    other = make_host("other", "fake://other/")
    make_place(other, "other", image=catalogue.item.image)
    assert approve(cast, operation).identifiers["host"] == other.pk


@pytest.mark.parametrize(("linked", "mode"), [(True, CloneMode.LINKED), (False, CloneMode.FULL)])
def test_the_items_kind_of_clone_reaches_the_driver(cast, catalogue, linked, mode):
    """Red when spec_of or volume_specs knows one kind alone."""
    CatalogueItem.objects.update(linked_clone=linked)
    catalogue.item.refresh_from_db()
    operation = approve(cast, ask(cast, catalogue))
    [volume] = specs.volume_specs(StepContext(operation.frozen, operation.identifiers, lambda: None))
    assert volume.clone is mode


def test_who_runs_kvm_can_emulate_as_well(cast, catalogue):
    """Red when a machine's accelerator is the host's, whatever was asked for."""
    Host.objects.update(accelerator="kvm")
    domain = domain_of(approve(cast, ask(cast, catalogue, accelerator="qemu")))
    assert domain.accelerator is Accelerator.EMULATION


@pytest.mark.parametrize(
    ("choice", "sentence"),
    [
        ({"devices": "emulated"}, "Tiny does not come with Full virtualization."),
        ({"accelerator": "kvm"}, "Tiny does not come with the choice Hardware-assisted"),
        ({"devices": "<b>"}, "Tiny does not come with <b>."),
        ({"accelerator": "hvm"}, "Tiny does not come with the choice hvm."),
    ],
)
def test_what_the_item_does_not_offer_is_refused(cast, catalogue, choice, sentence):
    """Red when spec_of does not ask offers.refusal."""
    CatalogueItem.objects.update(device_models=["paravirtual"], accelerators=["best"])
    catalogue.item.refresh_from_db()
    with pytest.raises(Denied, match=sentence.replace(".", r"\.")):
        ask(cast, catalogue, **choice)


def test_an_image_without_the_drivers_is_not_started_with_those_devices(cast, catalogue):
    Image.objects.update(device_models=["paravirtual"])
    item = CatalogueItem.objects.select_related("image").get()
    catalogue.item = item
    assert offer(item).devices == ["paravirtual"]
    with pytest.raises(Denied, match="does not come with Full virtualization"):
        ask(cast, catalogue, devices="emulated")


def test_the_form_offers_what_a_host_was_proven_to_give(client, cast, catalogue):
    """Red when the form shows every accelerator that the item allows."""
    client.force_login(cast.requester)
    url = reverse("vms:ask", args=[catalogue.item.pk])
    form = client.get(url).context["form"]
    assert [value for value, _label in form.fields["accelerator"].choices] == ["best", "qemu"]
    Host.objects.update(accelerator="kvm")
    page = client.get(url)
    choices = page.context["form"].fields["accelerator"].choices
    assert [value for value, _label in choices] == ["best", "kvm", "qemu"]
    assert all(sentence in page.content.decode() for sentence in map(str, map(escape, HELP.values())))
    Host.objects.update(accelerator="")
    assert "accelerator" not in client.get(url).context["form"].fields


def test_an_item_whose_image_no_host_has_and_none_can_get_is_closed(client, cast, catalogue):
    """Red when refusal() looks at no attachments: the request would wait for a host that never comes."""
    ImageAttachment.objects.all().delete()
    client.force_login(cast.requester)
    url, address = reverse("vms:catalogue"), reverse("vms:ask", args=[catalogue.item.pk])
    assert address in client.get(url).content.decode()
    Image.objects.update(source="")
    page = client.get(url).content.decode()
    assert address not in page and "no host has it any more" in page
    catalogue.item.refresh_from_db()
    with pytest.raises(Denied, match="no host has it any more"):
        ask(cast, catalogue)


def test_the_what_if_says_how_it_would_run(client, cast, catalogue):
    client.force_login(cast.requester)
    asked = {"project": cast.project.pk, "flavour": catalogue.flavour.pk, "devices": "emulated"}
    page = client.post(reverse("vms:what_if", args=[catalogue.item.pk]), asked).content.decode()
    assert "Full virtualization in software" in page


@pytest.mark.parametrize(
    ("change", "obstacle"),
    [
        ({}, ""),
        ({"observed_health": Health.STALE}, "down or in maintenance"),
        ({"maintenance": True}, "down or in maintenance"),
        ({"accelerator": ""}, "No host was proven"),
    ],
)
def test_an_item_that_no_host_gives_now_says_why(catalogue, change, obstacle):
    if change:
        Host.objects.update(**change)
    found = offer(catalogue.item).obstacle
    assert obstacle in found and bool(obstacle) == bool(found)


def test_offers_cost_one_query_however_many_items(catalogue):
    for number in range(5):
        CatalogueItem.objects.create(name=f"Item {number}", description="", image=make_image())
    items = list(CatalogueItem.objects.select_related("image").prefetch_related("flavours"))
    with CaptureQueriesContext(
        connection,
    ) as queries:
        found = offers(items)
    assert len(queries) == 1
    assert sum("on no host" in entry.obstacle for entry in found.values()) == 5


def test_every_type_has_its_words():
    assert len({words(accelerator, devices) for accelerator in ("kvm", "qemu") for devices in BOTH}) == 4
