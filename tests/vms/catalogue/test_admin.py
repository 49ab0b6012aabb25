"""Items and sizes as admins keep them: values, rights, the trail, and two people at once."""

import dataclasses
import uuid
from decimal import Decimal
from pathlib import Path

import pytest
from django.conf import settings
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from portal.accounts.models import Membership, Project, Role
from portal.audit.models import AuditEntry
from portal.core.errors import Denied
from portal.hosts.models import Image
from tests.factories import (
    GIB,
    MIB,
    make_catalogue,
    make_host,
    make_image,
    make_network,
    make_place,
    make_wish,
)
from tests.vms.catalogue.values import values_of
from vms.catalogue import services
from vms.catalogue.values import ICONS, Refused, SizeValues, item_snapshot, size_snapshot
from vms.models import CatalogueItem, Flavour
from vms.services import request_machine

pytestmark = [pytest.mark.database, pytest.mark.django_db]
BOTH = ["paravirtual", "emulated"]


@pytest.fixture
def as_chief(client, chief):
    client.force_login(chief)
    return client


@pytest.fixture
def catalogue(db):
    image = make_image(device_models=BOTH)
    make_place(make_host(), image=image)
    made = make_catalogue(image, make_network())
    made.item = CatalogueItem.objects.select_related("image").get()
    return made


def change(actor, item, seen=None, **changes):
    seen = item_snapshot(item) if seen is None else seen
    return services.change_item(actor=actor, item=item, values=values_of(item, **changes), seen=seen)


def posted(item, **changes):
    """The fields of the form as a browser sends them."""
    values = {
        "name": item.name,
        "description": item.description,
        "icon": item.icon,
        "image": item.image_id,
        "flavours": [size.pk for size in item.flavours.all()],
        "networks": [network.pk for network in item.networks.all()],
        "linked_clone": "1",
        "device_models": item.device_models,
        "default_devices": item.default_devices,
        "accelerators": item.accelerators,
        "default_accelerator": item.default_accelerator,
        "lease_days": item.lease_days,
        "longest_lease_days": item.longest_lease_days,
        "cost_month": item.cost_month,
        "cost_month_gib": item.cost_month_gib,
        "every_project": "1",
    }
    return values | changes


def ask(cast, catalogue, **changes):
    wish = make_wish(catalogue, **changes)
    return request_machine(actor=cast.requester, project=cast.project, wish=wish, token=uuid.uuid4())


def verbs():
    return list(AuditEntry.objects.order_by("pk").values_list("verb", flat=True))


def test_an_item_is_added_changed_and_retired_on_record(chief, catalogue):
    """Red when _record writes nothing, or offer_item does not save."""
    values = values_of(catalogue.item, name="Second", cost_month=Decimal("1.50"))
    item = services.add_item(actor=chief, values=values)
    assert item.position > catalogue.item.position and list(item.flavours.all()) == [catalogue.flavour]
    change(chief, item, longest_lease_days=30, lease_days=7)
    services.offer_item(actor=chief, item=item, offered=False)
    services.offer_item(actor=chief, item=item, offered=False)
    item.refresh_from_db()
    assert (item.longest_lease_days, item.offered) == (30, False)
    assert verbs() == ["catalogue.added", "catalogue.changed", "catalogue.retired"]
    entry = AuditEntry.objects.get(verb="catalogue.changed")
    assert (entry.before["longest_lease_days"], entry.after["longest_lease_days"]) == (365, 30)


def test_saving_what_is_there_already_leaves_no_entry(chief, catalogue):
    change(chief, catalogue.item)
    assert verbs() == []


@pytest.mark.parametrize("role", [role for role in Role])
def test_only_who_administers_every_project_changes_the_catalogue(cast, catalogue, role):
    """Red when _check_right lets an admin of one project pass."""
    actor, item, size = getattr(cast, role), catalogue.item, catalogue.flavour
    seen = item_snapshot(item)
    for call in (
        lambda: services.add_item(actor=actor, values=values_of(item, name="Other")),
        lambda: change(actor, item, seen, name="Other"),
        lambda: services.offer_item(actor=actor, item=item, offered=False),
        lambda: services.move_item(actor=actor, item=item, up=True),
        lambda: services.delete_item(actor=actor, item=item, confirm_name=item.name),
        lambda: services.add_size(actor=actor, values=SizeValues("Other", 1, GIB, GIB)),
        lambda: services.delete_size(actor=actor, size=size),
    ):
        with pytest.raises(Denied, match="Only an admin of every project"):
            call()
    assert item_snapshot(CatalogueItem.objects.get()) == seen and verbs() == []


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "a" * 81}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": " a"}, "name"),
        ({"description": "  "}, "description"),
        ({"icon": "no-such"}, "icon"),
        ({"icon": '"><script>'}, "icon"),
        ({"lease_days": 0}, "lease_days"),
        ({"lease_days": 366}, "lease_days"),
        ({"longest_lease_days": -1}, "longest_lease_days"),
        ({"longest_lease_days": 10**9}, "longest_lease_days"),
        ({"cost_month": Decimal(-1)}, "cost_month"),
        ({"cost_month": Decimal(10**9)}, "cost_month"),
        ({"cost_month_gib": Decimal("0.001")}, "cost_month_gib"),
        ({"disk_least": GIB}, "disk_most"),
        ({"disk_most": 0}, "disk_most"),
        ({"disk_most": 10**20}, "disk_most"),
        ({"disk_least": 2 * GIB, "disk_most": GIB}, "disk_least"),
        ({"disk_least": 0, "disk_most": GIB}, "disk_least"),
        ({"flavours": []}, "flavours"),
        ({"networks": []}, "networks"),
        ({"device_models": []}, "device_models"),
        ({"device_models": ["xen"]}, "device_models"),
        ({"default_devices": "emulated"}, "default_devices"),
        ({"accelerators": []}, "accelerators"),
        ({"accelerators": ["hvm"]}, "accelerators"),
        ({"default_accelerator": "kvm"}, "default_accelerator"),
        ({"every_project": False}, "projects"),
    ],
)
def test_wrong_values_are_told_at_their_field_and_change_nothing(chief, catalogue, changes, field):
    """Red when check_item leaves out the check of that field."""
    before = item_snapshot(catalogue.item)
    with pytest.raises(Refused) as refused:
        change(chief, catalogue.item, **changes)
    assert field in {name for name, _sentence in refused.value.problems}
    assert item_snapshot(CatalogueItem.objects.get()) == before and verbs() == []


def test_a_name_is_taken_whatever_its_capitals(chief, catalogue):
    with pytest.raises(Refused, match="taken"):
        services.add_item(actor=chief, values=values_of(catalogue.item, name="tInY"))


def test_a_size_must_fit_the_image(chief, catalogue):
    """Red when misfits() compares nothing."""
    small = Flavour.objects.create(name="minute", vcpus=1, memory=32 * MIB, disk=64 * MIB)
    with pytest.raises(Refused, match="smaller than Tiny") as refused:
        change(chief, catalogue.item, flavours=[small])
    assert "needs 64 MiB of memory" in refused.value.reason


def test_devices_need_drivers_in_the_image(chief, catalogue):
    Image.objects.update(device_models=["paravirtual"])
    item = CatalogueItem.objects.select_related("image").get()
    with pytest.raises(Refused, match="no drivers for Full virtualization"):
        change(chief, item, device_models=BOTH)


def test_a_change_leaves_requests_that_wait_as_they_are(cast, chief, catalogue):
    """Red when a request keeps the item's or the size's key and reads its values later."""
    operation = ask(cast, catalogue)
    frozen = operation.spec
    change(chief, catalogue.item, name="Renamed", cost_month=Decimal(9), longest_lease_days=90)
    size, values = catalogue.flavour, SizeValues("larger", 8, 8 * GIB, 80 * GIB, Decimal(99))
    services.change_size(actor=chief, size=size, values=values, seen=size_snapshot(size))
    operation.refresh_from_db()
    assert operation.spec == frozen
    assert (operation.frozen["pinned"]["cost_month"], operation.frozen["sizes"]["vcpu"]) == ("2.50", 1)


def test_what_somebody_else_changed_is_not_overwritten(as_chief, chief, catalogue):
    """Red when change_item does not compare with what was seen."""
    url = reverse("vms:item_edit", args=[catalogue.item.pk])
    opened = as_chief.get(url).context["form"]
    change(chief, CatalogueItem.objects.get(), longest_lease_days=90)
    mine = posted(catalogue.item, description="Mine.", seen=opened.initial["seen"])
    page = as_chief.post(url, mine)
    text = page.content.decode()
    assert page.status_code == 422 and "Somebody changed Tiny since you opened it" in text
    assert "longest_lease_days" in text and "365" in text and "90" in text
    assert "Mine." in text and CatalogueItem.objects.get().description == "To try things."
    # The page that told it counts as seen; so the second time is meant.
    again = as_chief.post(url, mine | {"seen": page.context["form"]["seen"].value()})
    assert again.status_code == 302
    item = CatalogueItem.objects.get()
    assert (item.description, item.longest_lease_days) == ("Mine.", 365)


def test_what_was_seen_cannot_be_forged(as_chief, catalogue):
    url = reverse("vms:item_edit", args=[catalogue.item.pk])
    assert as_chief.post(url, posted(catalogue.item, seen="forged", name="Other")).status_code == 422
    assert CatalogueItem.objects.get().name == "Tiny"


def test_order_is_what_people_see(cast, chief, client, catalogue):
    """Red when move_item does not save, or the catalogue is sorted by name."""
    second = services.add_item(actor=chief, values=values_of(catalogue.item, name="Another"))
    client.force_login(cast.requester)

    def shown():
        return [card.item.name for card in client.get(reverse("vms:catalogue")).context["rows"]]

    assert shown() == ["Tiny", "Another"]
    services.move_item(actor=chief, item=second, up=True)
    assert shown() == ["Another", "Tiny"]
    services.move_item(actor=chief, item=second, up=True)
    assert shown() == ["Another", "Tiny"] and verbs().count("catalogue.moved") == 1


def test_only_what_nobody_asked_for_is_deleted(cast, chief, catalogue):
    """Red when uses_of counts by name alone: the item was renamed since."""
    item = catalogue.item
    with pytest.raises(Denied, match="not the name"):
        services.delete_item(actor=chief, item=item, confirm_name="tiny")
    ask(cast, catalogue)
    change(chief, item, name="Renamed")
    item.refresh_from_db()
    with pytest.raises(Denied, match="asked for 1 times"):
        services.delete_item(actor=chief, item=item, confirm_name="Renamed")
    unused = services.add_item(actor=chief, values=values_of(item, name="Unused"))
    services.delete_item(actor=chief, item=unused, confirm_name="Unused")
    assert not CatalogueItem.objects.filter(name="Unused").exists()
    assert AuditEntry.objects.get(verb="catalogue.deleted").before["name"] == "Unused"


def test_what_was_asked_for_several_times_at_once_counts_as_used(cast, chief, catalogue):
    """Red when uses_of counts what builds one machine alone: one that waits could not be edited then."""
    ask(cast, catalogue, count=2)
    with pytest.raises(Denied, match="asked for 1 times"):
        services.delete_item(actor=chief, item=catalogue.item, confirm_name=catalogue.item.name)


def test_what_a_person_writes_does_not_count_as_a_use(cast, chief, catalogue):
    """Red when uses_of looks for words that a text can hold."""
    other = services.add_item(actor=chief, values=values_of(catalogue.item, name="Other"))
    ask(cast, catalogue, why=f'"item_id":{other.pk}, "item":"Other",')
    assert services.uses_of(other) == 0 and services.uses_of(catalogue.item) == 1


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"vcpus": 0}, "vcpus"),
        ({"vcpus": 10**6}, "vcpus"),
        ({"memory": 0}, "memory"),
        ({"memory": -GIB}, "memory"),
        ({"memory": 10**20}, "memory"),
        ({"memory": GIB + 1}, "memory"),
        ({"ceiling": 0}, "ceiling"),
        ({"ceiling": 128 * MIB}, "ceiling"),
        ({"ceiling": GIB + 1}, "ceiling"),
        ({"ceiling": 10**20}, "ceiling"),
        ({"disk": 0}, "disk"),
        ({"disk": 10**20}, "disk"),
        ({"cost_month": Decimal(-1)}, "cost_month"),
        ({"name": ""}, "name"),
        # An item comes in it already.
        ({"memory": 32 * MIB}, "memory"),
        ({"disk": 64 * MIB}, "disk"),
    ],
)
def test_wrong_sizes_are_told_at_their_field(chief, catalogue, changes, field):
    size = catalogue.flavour
    values = dataclasses.replace(SizeValues("small", 1, 128 * MIB, 256 * MIB), **changes)
    with pytest.raises(Refused) as refused:
        services.change_size(actor=chief, size=size, values=values, seen=size_snapshot(size))
    assert {name for name, _sentence in refused.value.problems} == {field}
    assert size_snapshot(Flavour.objects.get()) == size_snapshot(size)


@pytest.mark.parametrize(
    ("size", "words"), [(10 * GIB, "10"), (100 * GIB, "100"), (41 * GIB // 4, "10.25"), (GIB // 2, "0.5")]
)
def test_sizes_are_shown_as_people_write_them(as_chief, catalogue, size, words):
    """Red when a whole ten is shown as 1E+1."""
    Flavour.objects.update(memory=size, disk=size)
    edit = reverse("vms:size_edit", args=[catalogue.flavour.pk])
    told = {"name": "a", "vcpus": 2, "memory": size, "uefi": False, "os": "", "system": "", "networks": []}
    Image.objects.update(virtual_size=size, told=told)
    for url in (edit, f"{reverse('vms:sizes')}?image={Image.objects.get().pk}"):
        page = as_chief.get(url).content.decode()
        assert all(f'name="{name}" value="{words}"' in page for name in ("memory", "disk"))


def test_a_size_that_an_item_comes_in_stays(as_chief, chief, catalogue):
    with pytest.raises(Denied, match="small is a size of Tiny"):
        services.delete_size(actor=chief, size=catalogue.flavour)
    fresh = {"name": "Huge", "vcpus": 4, "memory": "0.5", "disk": "10", "cost_month": "3"}
    assert as_chief.post(reverse("vms:sizes"), fresh).status_code == 302
    size = Flavour.objects.get(name="Huge")
    assert (size.memory, size.disk) == (GIB // 2, 10 * GIB)
    as_chief.post(reverse("vms:size_delete", args=[size.pk]))
    assert not Flavour.objects.filter(name="Huge").exists()
    assert verbs() == ["size.added", "size.deleted"]


def test_the_form_keeps_what_was_typed_and_tells_each_mistake_at_its_field(as_chief, catalogue):
    url = reverse("vms:item_add")
    bad = posted(catalogue.item, name="Tiny", lease_days=0, cost_month="-4", description="<b>kept</b>")
    page = as_chief.post(url, bad)
    assert page.status_code == 422
    errors = page.context["form"].errors
    assert {"name", "lease_days", "cost_month"} <= set(errors)
    assert "&lt;b&gt;kept&lt;/b&gt;" in page.content.decode()
    assert as_chief.post(url, posted(catalogue.item, name="Good")).status_code == 302
    assert CatalogueItem.objects.get(name="Good").flavours.count() == 1


@pytest.mark.parametrize("huge", ["9" * 40, "1e400", "NaN", "Infinity", "-0"])
def test_numbers_that_no_column_holds_are_refused_kindly(as_chief, catalogue, huge):
    """Red when a value reaches the database before it was checked."""
    for name in ("lease_days", "disk_most", "cost_month"):
        assert as_chief.post(
            reverse("vms:item_add"), posted(catalogue.item, name="x", **{name: huge})
        ).status_code in {
            302,
            422,
        }
        CatalogueItem.objects.filter(name="x").delete()
    size = {"name": "y", "vcpus": huge, "memory": huge, "disk": huge, "cost_month": huge}
    assert as_chief.post(reverse("vms:sizes"), size).status_code == 422


def test_an_item_of_some_projects_is_seen_and_asked_for_there_alone(cast, chief, client, catalogue):
    """Red when rows_for leaves out shared_with, or request_machine does not ask for the project."""
    other = Project.objects.create(name="other")
    change(chief, catalogue.item, every_project=False, projects=[other])
    client.force_login(cast.requester)
    assert client.get(reverse("vms:catalogue")).context["rows"] == []
    assert client.get(reverse("vms:ask", args=[catalogue.item.pk])).status_code == 404
    catalogue.item.refresh_from_db()
    with pytest.raises(Denied, match="not offered to example"):
        ask(cast, catalogue)
    Membership.objects.create(user=cast.requester, project=other, role=Role.AUDITOR)
    assert client.get(reverse("vms:ask", args=[catalogue.item.pk])).status_code == 404
    Membership.objects.create(user=cast.requester, project=other, role=Role.REQUESTER)
    page = client.get(reverse("vms:ask", args=[catalogue.item.pk]))
    assert list(page.context["form"].fields["project"].queryset) == [other]


def test_a_disk_may_be_chosen_between_least_and_most_and_costs(cast, chief, catalogue):
    """Red when cost_month leaves out the GiB beyond, or _check_disk the most."""
    limits = {
        "disk_least": GIB,
        "disk_most": 4 * GIB,
        "cost_month_gib": Decimal("0.50"),
        "cost_month": Decimal(1),
    }
    with pytest.raises(Denied, match="cannot be chosen"):
        ask(cast, catalogue, disk=2 * GIB)
    catalogue.item = change(chief, catalogue.item, **limits)
    for disk in (512 * MIB, 5 * GIB, 10**18):
        with pytest.raises(Denied, match="is 1 GiB to 4 GiB"):
            ask(cast, catalogue, disk=disk)
    frozen = ask(cast, catalogue, disk=3 * GIB).frozen
    # 2.75 GiB beyond the size's 0.25: three begun, at 0.50 each; the size's 2.50 and the item's 1.
    assert (frozen["sizes"]["disk"], frozen["pinned"]["cost_month"]) == (3 * GIB, "5.00")


@pytest.mark.parametrize(("page", "most"), [("vms:catalogue_admin", 12), ("vms:catalogue", 12)])
def test_the_lists_cost_the_same_however_long_they_are(as_chief, chief, catalogue, page, most):
    """Red when a card or a row fetches its sizes, its projects or its hosts by itself."""

    def cost():
        with CaptureQueriesContext(connection) as queries:
            assert as_chief.get(reverse(page)).status_code == 200
        return len(queries)

    few = cost()
    other = Project.objects.create(name="other")
    for number in range(8):
        values = values_of(catalogue.item, name=f"Item {number}", every_project=False, projects=[other])
        services.add_item(actor=chief, values=values)
    assert cost() == few <= most


def test_every_picture_is_in_the_sprite():
    known = (Path(settings.BASE_DIR) / "scripts/lib/icons.txt").read_text().split()
    assert set(ICONS) <= set(known)
