"""Sizes with a ceiling of memory: what admins say of them, what a machine of one takes, and what it has."""

import uuid

import pytest
from django.urls import reverse as url

from portal.operations import revisions, words
from portal.operations import services as operations
from portal.operations.models import Counter, Operation
from portal.operations.registry import StepContext
from tests import factories
from tests.factories import MIB
from vms import specs
from vms.models import Flavour, VirtualMachine
from vms.services import request_machine

pytestmark = [pytest.mark.database, pytest.mark.django_db]


@pytest.fixture
def catalogue():
    """An item in one size of 128 MiB, which can be changed up to 512 while a machine runs."""
    image = factories.make_image(device_models=["paravirtual", "emulated"])
    host = factories.make_host()
    factories.make_place(host, image=image)
    Counter.objects.create(scope=host.scope, resource="memory", limit=2048 * MIB)
    found = factories.make_catalogue(image, factories.make_network())
    found.flavour.ceiling = 512 * MIB
    found.flavour.save()
    found.item.device_models = ["paravirtual", "emulated"]
    found.item.save()
    return found


def ask(cast, catalogue, **wish):
    made = factories.make_wish(catalogue, **wish)
    return request_machine(actor=cast.requester, project=cast.project, wish=made, token=uuid.uuid4())


def consent(cast, asked):
    return operations.decide(actor=cast.approver, operation=asked, spec_hash=asked.spec_hash, approved=True)


def domain_of(operation):
    operation = Operation.objects.get(pk=operation.pk)
    names = {**operation.identifiers, "volume_path": "/v.qcow2", "seed_path": "/s.iso"}
    return specs.domain_spec(StepContext(operation.frozen, names, lambda: None))


def mib(machine):
    return machine.memory_now // MIB, machine.memory // MIB


def test_a_machine_counts_by_its_ceiling_and_begins_with_less(cast, catalogue):
    """Red when a quota or the host counts the memory that it begins with, or it begins with all."""
    asked = ask(cast, catalogue)
    facts = {fact.label: fact.value for fact in words.facts(asked.frozen)}
    assert (facts["Memory"], facts["Memory now"]) == ("512 MiB", "128 MiB")
    consent(cast, asked)
    machine = VirtualMachine.objects.get()
    assert mib(machine) == (128, 512)
    held = Counter.objects.filter(resource="memory", held__gt=0)
    # The project, the person and their share; and the host.
    assert {row.held for row in held} == {512 * MIB} and machine.host.scope in {row.scope for row in held}
    domain = domain_of(asked)
    assert (domain.memory_now_bytes, domain.memory_bytes) == (128 * MIB, 512 * MIB)


def test_with_emulated_devices_it_has_all_of_it(cast, catalogue):
    """Red when a ceiling is frozen for a machine without a balloon: its definition would be refused."""
    asked = ask(cast, catalogue, devices="emulated")
    consent(cast, asked)
    assert mib(VirtualMachine.objects.get()) == (512, 512) and domain_of(asked).memory_now_bytes == 0


@pytest.mark.parametrize(("given", "left"), [(256, 128), (96, 96)])
def test_one_that_was_lowered_has_no_more_than_its_ceiling(cast, catalogue, given, left):
    asked = ask(cast, catalogue)
    lowered = revisions.lower(
        actor=cast.approver, operation=asked, spec_hash=asked.spec_hash, sizes={"memory": given * MIB}
    )
    consent(cast, lowered)
    assert mib(VirtualMachine.objects.get()) == (left, given)


def test_each_of_several_has_its_own(cast, catalogue):
    """Red when what each is left is taken for a sum."""
    asked = ask(cast, catalogue, name="web", count=3)
    facts = {fact.label: fact.value for fact in words.facts(asked.frozen)}
    assert (facts["Memory"], facts["Memory now"]) == ("1.5 GiB", "128 MiB")
    consent(cast, asked)
    assert [mib(machine) for machine in VirtualMachine.objects.all()] == [(128, 512)] * 3


def test_admins_give_a_size_its_ceiling_and_people_read_it(cast, chief, client, catalogue):
    client.force_login(chief)
    address = url("vms:size_edit", args=[catalogue.flavour.pk])
    form = client.get(address).context["form"]
    assert str(form.initial["ceiling"]) == "0.5"
    answer = client.post(address, {**form.initial, "ceiling": "0.1"})
    assert answer.status_code == 422 and "ceiling" in answer.context["form"].errors
    assert client.post(address, {**form.initial, "ceiling": "1"}).status_code == 302
    assert Flavour.objects.get().ceiling == 1024 * MIB
    assert "128 MiB to 1 GiB" in client.get(url("vms:sizes")).content.decode()
    client.force_login(cast.requester)
    for page in (url("vms:catalogue"), url("vms:ask", args=[catalogue.item.pk])):
        assert "128 MiB to 1 GiB memory" in client.get(page).content.decode()

    client.force_login(chief)
    form = client.get(address).context["form"]
    assert client.post(address, {**form.initial, "ceiling": ""}).status_code == 302
    assert Flavour.objects.get().ceiling is None and Flavour.objects.get().memory_counted == 128 * MIB
