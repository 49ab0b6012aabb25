"""Two people who have the page of a machine's drives open: the second sees what the first changed."""

import pytest
from django.core import signing
from django.urls import reverse as url

from portal.operations.models import Operation
from tests.vms import test_cards as cards
from tests.vms.test_cards import see
from tests.vms.test_media import holds, iso  # noqa: F401 (a fixture)
from vms.changes.devices import media
from vms.changes.devices.forms import ShownForm

pytestmark = [pytest.mark.database, pytest.mark.django_db]
#: Fixtures: a machine that runs with its seed in its drive, and the network that it is on.
machine, offered = cards.machine, cards.offered
EMPTY = {"source": {"file": None}}
SECOND = {
    "type": "file",
    "device": "cdrom",
    "target": {"dev": "sdb", "bus": "sata"},
    "source": {"file": "/elsewhere/tools.iso"},
    "readonly": True,
}


@pytest.fixture
def page(client, cast, machine):
    """The page as the second person has it open: what it carries, by the name of its field."""
    client.force_login(cast.requester)
    return {"seen": client.get(url("vms:media", args=[machine.pk])).context["carried"]}


def has(machine, *drives):
    """Let the machine be seen with its disk and these drives, of which {} is as it was made."""
    inside = {"devices": {"disks": [{}, *drives]}}
    see(machine, inside, before=inside)


def press(client, machine, name, *args, **posted):
    return client.post(url(f"vms:{name}", args=[machine.pk, *args]), posted)


def refused(answer, label, before, after):
    """Tell whether a press was refused with this change, and nothing begun."""
    text = answer.content.decode()
    assert answer.status_code == 422 and not Operation.objects.filter(kind__contains="drive").exists()
    assert "Somebody changed this while you looked" in text and "since you opened it" in text
    assert not Operation.objects.filter(kind=media.CHANGE).exists()
    [change] = answer.context["changes"]
    return (change.label, change.before, change.after) == (label, before, after)


def test_who_did_not_see_what_is_in_a_drive_changes_nothing_of_it(client, machine, iso, page):  # noqa: F811
    """Red when `_change` does not call check_drive(): the CD of the first would be thrown out unseen."""
    seed = f"{machine.domain_name}-seed.iso"
    holds(machine, iso)
    for posted in ({}, {"force": "1"}, {"medium": "seed"}):
        answer = press(client, machine, "media_change", "sda", **posted, **page)
        assert refused(answer, "In drive sda", seed, iso.volume_name)
    assert f"<del>{seed}</del>" in answer.content.decode() and iso.label in answer.content.decode()
    # The page that refused shows what is there, and from there it goes.
    again = {"seen": answer.context["carried"]}
    assert press(client, machine, "media_change", "sda", **again).status_code == 302
    assert Operation.objects.get(kind=media.CHANGE).identifiers["path"] == ""


def test_who_wishes_what_is_so_by_now_is_told_that(client, machine, iso, page):  # noqa: F811
    """Red when check_drive() comes before what is so already: both wanted the same."""
    holds(machine, iso)
    answer = press(client, machine, "media_change", "sda", medium=iso.pk, **page)
    assert answer.status_code == 302 and answer.url == url("vms:media", args=[machine.pk])
    assert not Operation.objects.filter(kind=media.CHANGE).exists()


def test_what_waits_in_a_drive_for_the_next_start_counts_too(client, machine, page):
    """Red when `shown` holds only what is in the drive now."""
    see(machine, {"devices": {"disks": [{}, {"source": {"file": "/elsewhere/tools.iso"}}]}})
    answer = press(client, machine, "media_change", "sda", **page)
    seed = f"{machine.domain_name}-seed.iso"
    assert refused(answer, "In drive sda from the next start on", seed, "tools.iso")


def test_another_file_of_the_same_name_is_another_cd(client, machine, page):
    """Red when `shown` holds the names of files alone."""
    name = f"{machine.domain_name}-seed.iso"
    has(machine, {"source": {"file": f"/elsewhere/{name}"}})
    answer = press(client, machine, "media_change", "sda", **page)
    assert refused(answer, "In drive sda", name, "another file of this name")


def test_another_drive_keeps_nobody_from_changing_theirs(client, machine, page):
    """Red when all drives of the page are asked for."""
    has(machine, {}, SECOND)
    assert press(client, machine, "media_change", "sda", **page).status_code == 302
    assert Operation.objects.filter(kind=media.CHANGE).exists()


def test_a_drive_that_somebody_added_keeps_a_second_from_coming_unseen(client, machine, page):
    """Red when add_drive() does not check what was seen: the machine would get one more than both wanted."""
    has(machine, {}, SECOND)
    answer = press(client, machine, "drive_add", bus="sata", **page)
    assert refused(answer, "Drive sdb", "not there", "there")


def test_what_is_in_a_drive_by_now_keeps_nobody_from_adding_one(client, machine, iso, page):  # noqa: F811
    holds(machine, iso)
    answer = press(client, machine, "drive_add", bus="sata", **page)
    assert answer.status_code == 302


def test_a_drive_that_was_emptied_or_taken_away_is_not_removed_unseen(client, machine, page):
    """Red when remove_drive() does not call check_drive()."""
    seed = f"{machine.domain_name}-seed.iso"
    has(machine, EMPTY)
    assert refused(press(client, machine, "drive_remove", "sda", **page), "In drive sda", seed, "")
    has(machine, None)
    assert refused(press(client, machine, "drive_remove", "sda", **page), "Drive sda", "there", "not there")


@pytest.mark.parametrize("how", ["none", "unsigned", "another"])
def test_what_nobody_signed_counts_as_nothing_seen(client, cast, machine, how):
    """Red when `shown` ends in `or None`: a page that says nothing of what it showed may do all."""
    client.force_login(cast.requester)
    another = signing.dumps(media.shown(media.drives_of(machine)), salt="another")
    posted = {} if how == "none" else {"seen": "x" if how == "unsigned" else another}
    answer = press(client, machine, "media_change", "sda", **posted)
    assert refused(answer, "Drive sda", "not there", "there")


def test_a_snapshot_tells_no_folder_of_the_host(machine):
    """Red when paths are in what the page carries, which anybody can read."""
    shown = media.shown(media.drives_of(machine))
    assert "/" not in str(shown)
    form = ShownForm({"seen": ShownForm(now=shown).initial["seen"]}, now={})
    assert form.shown == shown
