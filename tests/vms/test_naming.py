"""A machine's name and labels: what they can be, who may, where they are found."""

import uuid

import pytest
from django.urls import reverse as url

from portal.audit.models import AuditEntry
from portal.core.errors import Denied
from portal.operations.models import Operation
from tests.factories import make_catalogue, make_host, make_machine, make_network, make_place, make_wish
from tests.vms.test_settings import see
from vms import editing, naming
from vms.models import Observed
from vms.services import request_machine

pytestmark = [pytest.mark.database, pytest.mark.django_db]


@pytest.fixture
def machine(cast):
    return make_machine(cast, "example", make_host(), observed_state=Observed.SHUTOFF)


def call(actor, machine, name="example", labels="", seen=None):
    now = naming.named(machine) if seen is None else seen
    return naming.rename_machine(actor=actor, machine=machine, name=name, labels=labels, seen=now)


def test_a_name_counts_at_once_and_is_written_to_the_host(cast, machine):
    """Red when only the portal's row is renamed, or nothing is in the trail."""
    see(machine, {"title": "example"})
    begun = call(cast.requester, machine, "renamed", "role=web\nblue")
    machine.refresh_from_db()
    assert (machine.name, machine.label_list) == ("renamed", ["blue", "role=web"])
    assert begun.frozen["pinned"]["change"] == {"title": "renamed"} and begun.kind == "vm.edit"
    entry = AuditEntry.objects.get(verb="machine.named")
    assert entry.before == {"name": "example", "labels": ""} and entry.after["name"] == "renamed"


def test_a_name_set_back_waits_for_the_title_that_is_on_its_way(cast, machine):
    """Red when the title that was last seen is taken for the last one: the host would keep the first."""
    see(machine, {"title": "example"})
    call(cast.requester, machine, "renamed")
    machine.refresh_from_db()
    with pytest.raises(Denied, match="not finished yet"):
        call(cast.requester, machine, "example")
    machine.refresh_from_db()
    assert machine.name == "renamed"


def test_a_name_that_a_waiting_request_was_promised_is_taken(cast, machine):
    """Red when machines alone are asked: the request could not be carried out once it is approved."""
    item = make_catalogue(make_place(machine.host).images.get().image, make_network())
    wish = make_wish(item, name="promised")
    request_machine(actor=cast.requester, project=cast.project, wish=wish, token=uuid.uuid4())
    with pytest.raises(Denied, match="promised is taken") as denied:
        call(cast.requester, machine, "promised")
    assert denied.value.field == "name"


def test_labels_alone_touch_nothing_on_the_host(cast, machine):
    """Red when a label needs a host that answers, or queues anything."""
    see(machine)
    machine.host.observed_health = "stale"
    machine.host.save()
    assert call(cast.requester, machine, labels="b=2, a") is None
    machine.refresh_from_db()
    assert machine.label_list == ["a", "b=2"] and not Operation.objects.filter(kind="vm.edit").exists()
    with pytest.raises(Denied, match="does not answer"):
        call(cast.requester, machine, "renamed", "a\nb=2")
    machine.refresh_from_db()
    assert machine.name == "example"


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"name": "No Name"}, "name"),
        ({"name": ""}, "name"),
        ({"name": "taken"}, "name"),
        ({"labels": "=x"}, "labels"),
        ({"labels": "a b"}, "labels"),
        ({"labels": "a\na=2"}, "labels"),
        ({"labels": "a=" + "x" * 101}, "labels"),
        ({"labels": "a=\x1b[2J"}, "labels"),
        ({"labels": "\n".join(f"l{n}" for n in range(21))}, "labels"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_at_its_field(cast, machine, values, field):
    make_machine(cast, "taken", machine.host)
    with pytest.raises(Denied) as denied:
        call(cast.requester, machine, **values)
    machine.refresh_from_db()
    assert denied.value.field == field and naming.named(machine) == {"name": "example", "labels": ""}


@pytest.mark.parametrize("who", ["auditor", "approver"])
def test_who_may_not_use_it_does_not_name_it(cast, machine, who):
    with pytest.raises(Denied, match="Only the owner"):
        call(getattr(cast, who), machine, labels="mine")


def test_nobody_overwrites_labels_that_they_never_saw(cast, machine):
    """Red when what was seen is not compared."""
    call(cast.requester, machine, labels="first")
    with pytest.raises(editing.Clash):
        call(cast.operator, machine, labels="second", seen={"name": "example", "labels": ""})
    machine.refresh_from_db()
    assert machine.label_list == ["first"]


def test_the_second_of_two_people_sees_what_the_first_wrote_before_it_goes(client, cast, machine):
    """Red when the page lists no changes, or the form carries what was never shown, or the old for ever."""
    client.force_login(cast.operator)
    address = url("vms:name", args=[machine.pk])
    opened = client.get(address).context["form"].initial
    call(cast.requester, machine, "renamed", "first=<i>\nsame")
    typed = {"name": "example", "labels": "same\nsecond"}
    answer = client.post(address, {**opened, **typed})
    text = answer.content.decode()
    assert answer.status_code == 422 and "Somebody changed this while you looked" in text
    assert "<del>example</del>" in text and "<ins>renamed</ins>" in text
    assert "<ins>+ first=&lt;i&gt;</ins>" in text and 'value="example"' in text
    machine.refresh_from_db()
    assert machine.labels == "first=<i>\nsame"
    call(cast.requester, machine, "renamed", "third")
    shown = answer.context["form"].initial["seen"]
    again = client.post(address, {**typed, "seen": shown})
    assert [change.label for change in again.context["changes"]] == ["Labels"]
    assert client.post(address, {**typed, "seen": again.context["form"].initial["seen"]}).status_code == 302
    machine.refresh_from_db()
    assert naming.named(machine) == typed


def test_labels_are_shown_and_found(client, cast, machine):
    """Red when the list does not search labels, or draws one as it is."""
    make_machine(cast, "other", machine.host)
    client.force_login(cast.requester)
    address = url("vms:name", args=[machine.pk])
    form = client.get(address).context["form"]
    answer = client.post(address, {**form.initial, "labels": "owner=<b>ops</b>"})
    assert answer.status_code == 302
    for page in (client.get(answer.url), client.get(url("vms:list"), {"q": "OPS"})):
        text = page.content.decode()
        assert "owner=&lt;b&gt;ops" in text and "<b>ops" not in text
    found = client.get(url("vms:list"), {"q": "ops"}).context["page"].object_list
    assert [vm.name for vm in found] == ["example"]
