"""Two admins at once: one change counts, and the other is told."""

import uuid

import pytest

from portal.audit.models import AuditEntry
from portal.core.stale import Changed
from portal.hosts import services as hosts
from portal.hosts.images import describing
from tests.factories import make_catalogue, make_image, make_network
from tests.racing import race
from tests.vms.catalogue.test_describing import said
from tests.vms.catalogue.test_images import write_manifest
from tests.vms.catalogue.values import values_of
from vms.catalogue import describing as catalogue_describing
from vms.catalogue import services
from vms.catalogue.values import Refused, SizeValues, item_snapshot, size_snapshot
from vms.models import CatalogueItem, Flavour

pytestmark = [pytest.mark.database, pytest.mark.usefixtures("trail_that_can_be_flushed")]


@pytest.fixture
def item(cast):
    make_catalogue(make_image(), make_network())
    return CatalogueItem.objects.select_related("image").get()


def counted(results, kind):
    return sum(isinstance(result, kind) for result in results)


def test_of_racing_changes_of_one_item_one_is_kept(chief, item):
    """Red when change_item compares what it read without a lock."""
    seen = item_snapshot(item)

    def change(days):
        values = values_of(item, longest_lease_days=days)
        return lambda: services.change_item(actor=chief, item=item, values=values, seen=seen)

    results = race([change(100 + number) for number in range(8)])
    assert (counted(results, CatalogueItem), counted(results, Changed)) == (1, 7)
    (entry,) = AuditEntry.objects.filter(verb="catalogue.changed")
    item.refresh_from_db()
    assert entry.after["longest_lease_days"] == item.longest_lease_days


def test_who_changes_what_gets_another_image_is_not_told_that_it_is_gone(chief, item):
    """Red on PostgreSQL when _locked() joins the image: of an item with another one no row comes back."""
    images = [item.image, make_image(name="another")]
    for turn in range(8):
        current = CatalogueItem.objects.select_related("image").get()
        seen, image = item_snapshot(current), images[(turn + 1) % 2]

        def change(current=current, seen=seen, image=image):
            values = values_of(current, image=image)
            return services.change_item(actor=chief, item=current, values=values, seen=seen)

        def offer(current=current, turn=turn):
            return services.offer_item(actor=chief, item=current, offered=turn % 2 == 0)

        results = race([change, offer] * 3)
        assert not [found for found in results if "deleted" in str(found)], results


def test_of_racing_descriptions_one_is_kept_and_no_builders_list_comes_between(chief, cast, tmp_path):
    """Red when describe or make_known reads the image without a lock (on PostgreSQL)."""
    path = write_manifest(tmp_path, b"one")
    (image,) = hosts.import_images(actor=chief, manifest=path)
    seen = describing.snapshot(image)

    def say(title):
        return lambda: catalogue_describing.describe(
            actor=chief, image=image, values=said(image, title=title), seen=seen
        )

    def read():
        return hosts.import_images(actor=chief, manifest=path)

    results = race([*[say(f"Ours {number}") for number in range(4)], read, read, read])
    assert (counted(results, Changed), counted(results, list)) == (3, 3), results
    image.refresh_from_db()
    (entry,) = AuditEntry.objects.filter(verb="image.described")
    assert image.title == entry.after["title"] and image.edited == ["title"]


def test_of_racing_names_one_is_given(chief, item):
    """Red when the database's refusal of a second one is an error of the portal."""
    values = values_of(item, name=f"New {uuid.uuid4().hex[:6]}")
    results = race([lambda: services.add_item(actor=chief, values=values)] * 8)
    assert (counted(results, CatalogueItem), counted(results, Refused)) == (1, 7)


def test_racing_moves_end_in_the_order_that_the_trail_tells(chief, item):
    """Red when move_item reads the order without a lock: a move is lost (on PostgreSQL)."""
    for number in range(4):
        services.add_item(actor=chief, values=values_of(item, name=f"Item {number}"))
    items = list(CatalogueItem.objects.all())
    order = [moved.pk for moved in items]
    results = race(
        [lambda moved=moved: services.move_item(actor=chief, item=moved, up=True) for moved in items]
    )
    assert results == [None] * 5
    for entry in AuditEntry.objects.filter(verb="catalogue.moved").order_by("pk"):
        here, there = entry.before["position"] - 1, entry.after["position"] - 1
        assert order[here] == int(entry.target_id)
        order[here], order[there] = order[there], order[here]
    assert list(CatalogueItem.objects.values_list("pk", "position")) == list(
        zip(order, range(1, 6), strict=True)
    )


def test_of_racing_changes_of_one_size_one_is_kept(chief, item):
    size = Flavour.objects.get()
    seen = size_snapshot(size)

    def change(vcpus):
        values = SizeValues(size.name, vcpus, size.memory, size.disk, size.cost_month)
        return lambda: services.change_size(actor=chief, size=size, values=values, seen=seen)

    results = race([change(2 + number) for number in range(8)])
    assert (counted(results, Flavour), counted(results, Changed)) == (1, 7)
