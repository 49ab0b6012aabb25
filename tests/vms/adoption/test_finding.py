"""Machines that somebody made elsewhere are found, and shown to those who may adopt them."""

import importlib
import uuid

import pytest
from django.apps import apps
from django.urls import reverse as url
from django.utils import timezone

from portal.accounts.models import User
from portal.operations.models import Operation
from tests import factories
from tests.vms.adoption.making import finish, make
from vms.adoption.forms import proposed_name
from vms.models import Definition

pytestmark = pytest.mark.database


@pytest.mark.django_db
def test_every_domain_that_is_no_machine_is_listed_and_says_why_it_cannot_be_adopted(
    client, operator, strangers
):
    """Red when strangers() lists a machine, Xen's host or a proof's guest, or a reason is left out."""
    client.force_login(operator)
    page = client.get(url("vms:found"))
    denied = {row.definition.observed_name: row.denied for row in page.context["rows"]}
    assert denied.pop("Old_Web.1") == ""
    for name, why in {
        "box": "of the type lxc, and the portal runs machines of the types kvm, qemu, xen",
        "huge": "cannot be read",
        "none": "cannot be read",
        "passing": "only while it runs",
        "copy": "on another host has its UUID",
    }.items():
        assert why in denied.pop(name)
    assert denied == {}
    text = page.content.decode()
    assert "2 vCPU" in text and "/example/volume-a" in text
    assert "/srv/<b>.raw" not in text and "/srv/&lt;b&gt;.raw" in text


@pytest.mark.django_db
def test_the_list_is_searched_sorted_and_linked_for_those_who_may_adopt(client, cast, operator, strangers):
    client.force_login(operator)
    assert url("vms:found") in client.get(url("vms:list")).content.decode()
    names = [row.definition.observed_name for row in client.get(url("vms:found"), {"q": "O"}).context["rows"]]
    assert sorted(names) == ["Old_Web.1", "box", "copy", "none"]
    by_host = client.get(url("vms:found"), {"sort": "-host"}).context["rows"]
    assert by_host[0].definition.observed_name == "copy"
    client.force_login(cast.operator)
    assert url("vms:found") not in client.get(url("vms:list")).content.decode()
    assert client.get(url("vms:found")).status_code == 404


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("domain", "name"),
    [
        ("web", "web"),
        ("Old_Web.1", "old-web-1"),
        ("--Ünï  X--", "n-x"),
        ("x" * 200, "x" * 60),
        ("taken", "taken-2"),
    ],
)
def test_a_domains_name_is_made_into_a_machines(cast, host, domain, name):
    factories.make_machine(cast, "taken", host)
    definition = Definition(uuid=uuid.uuid4(), observed_name=domain)
    assert proposed_name(definition) == name


@pytest.mark.django_db
def test_a_name_of_no_letter_still_gives_one(cast):
    assert proposed_name(Definition(uuid=uuid.UUID(int=7), observed_name="机器")) == "machine-00000000"


@pytest.mark.django_db
def test_the_form_proposes_says_what_it_takes_and_adopts(client, cast, operator, driver, place):
    definition = make(driver, place.host, disks=["volume-a", "/srv/b.raw"])
    client.force_login(operator)
    address = url("vms:adopt", args=[definition.pk])
    page = client.get(address)
    assert page.context["form"].initial == {"name": "old-web-1", "owner": "everywhere"}
    assert [(drive.target, pool) for drive, pool in page.context["disks"]] == [
        ("vda", "example-pool"),
        ("vdb", ""),
    ]
    posted = {"name": "old-web-1", "project": cast.project.pk, "owner": "nobody-here", "lease_days": 7}
    wrong = client.post(address, posted)
    assert wrong.status_code == 422 and "Nobody here has this name" in wrong.content.decode()
    User.objects.filter(username="requester").update(email="r@example.org")
    answer = client.post(address, posted | {"owner": "R@example.org"})
    begun = Operation.objects.get(kind="vm.adopt")
    assert answer.url == url("operations:detail", args=[begun.pk])
    shown = client.get(answer.url).content.decode()
    assert "Old_Web.1" in shown and "7 days" in shown
    finish(begun)
    assert "old-web-1 is adopted." in client.get(url("accounts:notices")).content.decode()
    assert client.get(address).status_code == 404


@pytest.mark.django_db
def test_the_migration_writes_down_what_domains_are_called(cast, host):
    """Red when the migration names a domain otherwise than the portal did when it made it."""
    machine = factories.make_machine(cast, "web", host, domain_name="")
    running = {"observed_running": {"name": "passing"}}
    values = {"host": host, "observed_at": timezone.now(), "observed_digest": "d"}
    defined = {"observed_persistent": {"name": "theirs"}}
    rows = [Definition.objects.create(uuid=uuid.uuid4(), **values, **told) for told in (running, defined, {})]
    migration = importlib.import_module("vms.migrations.0008_adoption")
    migration.fill(apps, None)
    machine.refresh_from_db()
    assert machine.domain_name == f"web-{str(machine.uuid)[:8]}"
    names = [Definition.objects.get(pk=row.pk).observed_name for row in rows]
    assert names == ["passing", "theirs", ""]
