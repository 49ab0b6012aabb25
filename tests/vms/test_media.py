"""ISO images of the catalogue in machines' drives: which may come in, what is forced, who uses an image."""

import pytest
from django.urls import reverse as url

from portal.accounts.models import Membership
from portal.core.errors import Denied
from portal.hosts.images.in_use import uses_of
from portal.hosts.models import ImageAttachment, Volume
from portal.hosts.storage import using
from portal.operations.models import Operation, StepRecord
from portal.operations.registry import StepContext, StepFailed
from portal.operations.states import State
from tests.factories import make_host, make_image, make_place
from tests.vms import test_cards as cards
from tests.vms.test_cards import finish, see, told
from vms.changes.devices import media

pytestmark = [pytest.mark.database, pytest.mark.django_db]
#: Fixtures: a machine that runs with its seed in its drive, and the network that it is on.
machine, offered = cards.machine, cards.offered


@pytest.fixture
def iso(machine):
    """A CD of the catalogue, in the pool of the machine's disk."""
    image = make_image(kind="iso", name="rescue", title="Rescue", format="iso")
    pool = machine.disks.get().pool
    ImageAttachment.objects.create(image=image, pool=pool, path=f"{pool.path}/{image.volume_name}")
    return image


def insert(actor, machine, iso, **more):
    return media.insert_image(actor=actor, machine=machine, target="sda", image=iso, **more)


def holds(machine, iso):
    """Let the portal see the CD in the machine's drive."""
    inside = {"devices": {"disks": [{}, {"source": {"file": iso.attachments.get().path}}]}}
    see(machine, inside, before=inside)


def test_an_image_comes_in_and_is_told_of(cast, machine, iso):
    """Red when what is in already begins something, or the step is not told the path on this host."""
    path = iso.attachments.get().path
    begun = insert(cast.requester, machine, iso)
    assert (begun.identifiers["path"], begun.identifiers["force"]) == (path, False)
    assert begun.identifiers["back"].endswith("-seed.iso")
    assert told(begun)["In drive sda"].endswith(f"→ {iso.volume_name}")
    finish(begun)
    holds(machine, iso)
    assert insert(cast.requester, machine, iso) is None
    assert [drive.image for drive in media.drives_of(machine)] == [iso.label]
    out = {"actor": cast.requester, "machine": machine, "target": "sda", "seed": False}
    forced = media.change_media(**out, force=True)
    assert (forced.identifiers["path"], forced.identifiers["force"]) == ("", True)
    assert "By force" in told(forced)


@pytest.mark.parametrize("why", ["disk", "deprecated", "elsewhere", "others"])
def test_what_may_not_come_in_is_refused_and_not_offered(cast, machine, iso, why):
    """Red when images_for() forgets one of its conditions."""
    if why == "disk":
        iso.kind = "disk"
    elif why == "deprecated":
        iso.deprecated_at = machine.created_at
    elif why == "elsewhere":
        other = make_place(make_host("other", "fake:///other"), "other-pool", image=make_image(name="else"))
        iso.attachments.update(pool=other)
    else:
        iso.every_project = False
    iso.save()
    # An operator of every project sees every image; the machine's project may not use it all the same.
    Membership.objects.filter(user=cast.operator).update(project=None)
    for actor in (cast.requester, cast.operator):
        assert not media.images_for(actor, machine).exists()
        with pytest.raises(Denied, match="cannot be put into this machine"):
            insert(actor, machine, iso)
    assert not Operation.objects.filter(kind=media.CHANGE).exists()


def test_an_image_for_the_machines_project_comes_in(cast, machine, iso):
    iso.every_project = False
    iso.save()
    iso.projects.add(machine.project)
    assert insert(cast.requester, machine, iso) is not None


def test_who_may_not_use_the_machine_inserts_nothing(cast, machine, iso):
    with pytest.raises(Denied, match="Only the owner, an operator or an admin"):
        insert(cast.auditor, machine, iso)


def test_an_image_is_in_use_from_the_click_on_until_it_is_out(cast, machine, iso):
    """Red when the drives of machines are not asked: the image could be deleted under a guest."""
    assert uses_of(iso) == []
    begun = insert(cast.requester, machine, iso)
    assert "not finished" in uses_of(iso)[0]
    finish(begun)
    holds(machine, iso)
    assert f"in the CD drive of {machine.name}" in uses_of(iso)[0]
    see(machine)
    assert uses_of(iso) == []


def test_the_volume_of_an_image_says_which_machine_has_it(cast, machine, iso):
    """Red when only the disks of machines count."""
    pool = machine.disks.get().pool
    row = Volume.objects.create(pool=pool, name=iso.volume_name, observed_path=iso.attachments.get().path)
    volumes = list(Volume.objects.filter(pk=row.pk).select_related("pool__pool", "pool__host"))
    words = f"Machine {machine.name}"
    assert words not in [use.words for use in using.uses_of(volumes)[row.pk]]
    holds(machine, iso)
    assert words in [use.words for use in using.uses_of(volumes)[row.pk]]


def test_a_tray_that_is_held_is_told_in_its_own_words_and_can_be_forced(monkeypatch):
    """Red when the step does not pass the force on, or another failure is called a held tray."""
    calls = []

    def call(self, context, verb, *args):
        calls.append((verb, *args))
        if not args[-1]:
            raise StepFailed(args[2] or "guest_ignores")

    monkeypatch.setattr(media.ChangeMedia, "call", call)
    monkeypatch.setattr(media.ChangeMedia, "look", lambda self, context: None)

    def do(**names):
        names = {"uuid": "u", "target": "sda", "path": "", **names}
        media.ChangeMedia().do(StepContext({}, names, lambda: None))

    with pytest.raises(StepFailed) as held:
        do(force=False)
    assert held.value.code == "tray_held"
    # As one that was queued by an earlier version.
    with pytest.raises(StepFailed) as gone:
        do(path="volume_not_found")
    assert gone.value.code == "volume_not_found"
    do(force=True)
    assert calls[-1] == ("change_media", "u", "sda", None, True)


def test_the_page_inserts_and_forces(client, cast, machine, iso):
    client.force_login(cast.requester)
    page = url("vms:media", args=[machine.pk])
    shown = client.get(page)
    text, carried = shown.content.decode(), {"seen": shown.context["carried"]}
    assert iso.label in text and "Eject by force" in text
    change = url("vms:media_change", args=[machine.pk, "sda"])
    answer = client.post(change, {"medium": iso.pk, **carried})
    begun = Operation.objects.get(kind=media.CHANGE)
    assert answer.url == url("operations:detail", args=[begun.pk])
    assert begun.identifiers["path"] == iso.attachments.get().path
    StepRecord.objects.create(
        operation=begun, index=0, name="media", stage=StepRecord.Stage.UNDONE, error_code="tray_held"
    )
    finish(begun, State.FAILED)
    assert "holds the drive shut" in client.get(answer.url).content.decode()
    client.post(change, {"force": "1", **carried})
    assert Operation.objects.latest("pk").identifiers["force"] is True
    assert client.post(change, {"medium": "999999"}).status_code == 404


@pytest.mark.parametrize("medium", ["9" * 5000, "9" * 30, "²", "x"], ids=["long", "large", "odd", "word"])
def test_what_names_no_image_changes_nothing(client, cast, machine, medium):
    """Red when the page looks for whatever has digits, or takes what it does not know for an empty drive."""
    client.force_login(cast.requester)
    answer = client.post(url("vms:media_change", args=[machine.pk, "sda"]), {"medium": medium})
    assert answer.status_code == 404 and not Operation.objects.filter(kind=media.CHANGE).exists()
