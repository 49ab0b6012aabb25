"""How disks are cached and trimmed: one value for all disks of a machine, whose price is told."""

import pytest
from django.urls import reverse as url

from portal.core.errors import Denied
from portal.drivers.inspection import Kind, changed
from tests.vms.test_settings import (  # noqa: F401 (fixtures)
    definition,
    digest,
    edit,
    ground,
    machine,
    see,
    understood,
)
from vms import settings
from vms.settings import disks

pytestmark = [pytest.mark.database, pytest.mark.django_db]
#: Beside the portal's own disk and its seed (a CD).
SECOND = {
    "type": "file",
    "device": "disk",
    "driver": {"name": "qemu", "type": "raw", "cache": "writeback"},
    "source": {"file": "/second.raw"},
    "target": {"dev": "vdb", "bus": "virtio"},
}
FLOPPY = {**SECOND, "device": "floppy", "target": {"dev": "fda", "bus": "fdc"}}
FLOPPY["driver"] = {"name": "qemu", "type": "raw"}
TWO = {"devices": {"disks": [{}, {}, SECOND]}}


def drivers(text):
    return [disk.get("driver") for disk in understood(text)["devices"]["disks"]]


def put(text, **values):
    return changed(Kind.DOMAIN, text.encode(), settings.patch_of(ground(text), values))


def test_what_differs_is_told_and_made_the_same_and_nothing_else_is_touched():
    """Red when a CD gets a cache, when the format goes, or when disks that differ are taken for the first."""
    text = changed(Kind.DOMAIN, definition(change=TWO).encode(), {"devices": {"disks": [{}, {}, {}, FLOPPY]}})
    found = settings.values(understood(text))
    assert (found["cache"], found["trim"]) == ("mixed", "mixed")
    before = drivers(text)
    after = drivers(put(text, cache="none", trim="off"))
    for at, now in enumerate(after):
        is_disk = understood(text)["devices"]["disks"][at].get("device") == "disk"
        assert now == ({**before[at], "cache": "none", "discard": "ignore"} if is_disk else before[at])
    assert sum(now == was for now, was in zip(after, before, strict=True)) == 2
    with pytest.raises(Denied):
        put(definition(), cache="mixed")


def test_disks_keep_their_cache_beside_a_new_order():
    """Red when two settings of the disks in one change are not merged place by place."""
    text = put(definition(change=TWO), cache="directsync", trim="on", order="disk:vdb disk:vda")
    found = settings.values(understood(text))
    assert (found["cache"], found["trim"], found["order"]) == ("directsync", "on", "disk:vdb disk:vda")


def test_a_cache_that_its_way_of_reading_forbids_is_refused_at_its_place():
    """Red when it is left to libvirt, which refuses it in its own words at the end of the operation."""
    text = definition(change={"devices": {"disks": [{"driver": {"io": "native", "cache": "none"}}]}})
    for value in ("default", "writeback", "unsafe"):
        with pytest.raises(Denied) as denied:
            put(text, cache=value)
        assert denied.value.field == "cache"
    assert "io native" in disks.CACHE.lacks(ground(text)) and not disks.CACHE.lacks(ground(definition()))
    assert settings.values(understood(put(text, cache="directsync")))["cache"] == "directsync"


def test_a_machine_without_disks_has_none_to_set():
    only_cd = definition(change={"devices": {"disks": [None]}})
    with pytest.raises(Denied, match="no disks"):
        put(only_cd, trim="on")


def test_the_page_tells_the_price_where_it_is_chosen(cast, machine, client, digest):  # noqa: F811
    """Red when the page offers a cache and does not say what it costs, or when it counts at once."""
    client.force_login(cast.requester)
    page = client.get(url("vms:settings", args=[machine.pk])).content.decode()
    for words in ("loses power", "takes memory of the host", "only for what can", "scatters a qcow2"):
        assert words in page
    edit(cast.requester, machine, digest, cache="writethrough")
    see(machine, {"devices": {"disks": [{"driver": {"cache": "writethrough"}}]}}, running=definition())
    page = client.get(url("vms:settings", args=[machine.pk])).content.decode()
    assert "At the next start" in page and "each write waits (writethrough)" in page
