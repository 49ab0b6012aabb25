"""An image that is to need more memory: what becomes of changes of its machines' sizes is told before."""

import uuid

import pytest
from django.urls import reverse

from portal.core.errors import Denied
from portal.hosts.images import describing as images
from portal.hosts.images.values import FIELDS, Description
from portal.hosts.models import Image
from portal.operations.models import Operation
from portal.operations.states import State
from tests.factories import GIB, MIB, make_machine
from tests.vms.test_memory import consent, host, look, off, resize, work  # noqa: F401 (a fixture)
from vms.catalogue import describing
from vms.changes import resizing

pytestmark = [pytest.mark.database, pytest.mark.django_db]
LATER = "can only be approved after it was changed: Resize example."


@pytest.fixture
def image(host):  # noqa: F811
    """The image of the machine, which runs with 1 GiB of at most 4."""
    Image.objects.update(min_memory=64 * MIB)
    host.vm.refresh_from_db()
    return Image.objects.get()


def described(image, least):
    values = {name: getattr(image, name) for name in FIELDS} | {"min_memory": least}
    values |= {"device_models": tuple(image.device_models), "projects": ()}
    return Description(**values)


def follows(image, least):
    """Return what follows when the image needs `least` bytes."""
    return describing.effects(Image.objects.get(pk=image.pk), described(image, least))


def more_of_one_and_less_of_the_other(cast, host):  # noqa: F811
    """Ask for what needs somebody's consent and leaves the guest 512 MiB."""
    asked = resize(cast, host, 512 * MIB, 8 * GIB)
    assert asked.state == State.AWAITING_APPROVAL
    return asked


def test_a_request_that_waits_is_told_of_before_and_refused_with_the_reason(
    client, cast, chief, host, image  # noqa: F811
):
    """Red when `_resizes` looks for no request that waits, or AskingToChange.outlooks tells no misfit."""
    asked = more_of_one_and_less_of_the_other(cast, host)
    assert follows(image, 512 * MIB) == []
    [told] = follows(image, GIB)
    assert LATER in told
    values, seen = described(image, GIB), images.snapshot(image)
    with pytest.raises(describing.Follows) as followed:
        describing.describe(actor=chief, image=image, values=values, seen=seen)
    assert Image.objects.get().min_memory == 64 * MIB
    token = followed.value.token
    describing.describe(actor=chief, image=image, values=values, seen=seen, agreed=token)

    client.force_login(cast.approver)
    page = client.get(reverse("operations:detail", args=[asked.pk])).content.decode()
    assert "was described anew since this was asked. example needs at least 1 GiB." in page
    with pytest.raises(Denied, match="was described anew since this was asked. example needs at least 1 GiB"):
        consent(cast, asked)
    with pytest.raises(Denied, match="example needs at least 1 GiB"):
        resize(cast, host, 512 * MIB, 4 * GIB)
    # It went with its image no more before, so that nothing follows of what comes on top.
    assert follows(Image.objects.get(), 2 * GIB) == []


def test_what_leaves_the_guest_as_much_as_it_has_is_no_matter(cast, host, image):  # noqa: F811
    """Red when too_little() forgets what the machine has: it could be changed in nothing any more."""
    asked = resize(cast, host, GIB, 8 * GIB)
    assert follows(image, 3 * GIB) == []
    Image.objects.update(min_memory=3 * GIB)
    [outlook] = resizing.RESIZE.asking.outlooks([asked]).values()
    assert not any("described anew" in warning for warning in outlook.warnings)
    consent(cast, asked)


def test_another_images_machines_are_no_matter(cast, host, image):  # noqa: F811
    """Red when `_resizes` takes the machines of every image."""
    more_of_one_and_less_of_the_other(cast, host)
    other = Image.objects.get(pk=image.pk)
    other.pk, other.sha256, other.version = None, "f" * 64, "other"
    other.save()
    assert follows(other, GIB) == []


def test_what_was_approved_and_is_not_done_yet_is_told_of(cast, host, image):  # noqa: F811
    """Red when `_short` does not look at UNFINISHED: the machine would come below by what nobody sees."""
    begun = resize(cast, host, 512 * MIB, 4 * GIB, why="")
    assert begun.state == State.QUEUED
    assert follows(image, GIB) == ["A change that is under way leaves less memory than that to example."]
    assert work(begun).state == State.SUCCEEDED
    assert follows(image, GIB) == []


def test_what_a_guest_keeps_until_its_next_start_is_told_of(cast, host, image):  # noqa: F811
    """Red when `_at_next_start` is left out: it has less by its definition, and nothing else tells of it."""
    host.driver.guest_heeds = False
    assert work(resize(cast, host, 512 * MIB, 4 * GIB, why="")).state == State.SUCCEEDED
    look(host)
    words = "A machine has less memory than that from its next start on: example."
    assert follows(image, GIB) == [words]
    assert follows(image, 5 * GIB) == [] and follows(image, 512 * MIB) == []
    off(host)
    assert follows(image, GIB) == []


def test_many_are_told_of_by_few_queries(cast, host, image, django_assert_num_queries):  # noqa: F811
    """Red when each machine or request is asked for by itself."""
    more_of_one_and_less_of_the_other(cast, host)
    with django_assert_num_queries(8):
        follows(image, GIB)
    for number in range(3):
        other = make_machine(cast, f"other-{number}", host.row, image, memory=4 * GIB)
        copied = Operation.objects.filter(kind=resizing.KIND).earliest("pk")
        spec = copied.spec.replace(str(host.vm.uuid), str(other.uuid))
        copied.pk, copied.spec, copied.token = None, spec, uuid.uuid4()
        copied.save()
    with django_assert_num_queries(8):
        assert "4 requests that wait" in follows(image, GIB)[0]
