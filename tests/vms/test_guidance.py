"""What pages say of the system in an image: sizes below its least, its facts, and that nothing is known."""

import pytest
from django.urls import reverse

from portal.core import osinfo
from portal.hosts.models import Image
from portal.operations.models import Operation
from tests.core.test_osinfo import database  # noqa: F401
from tests.factories import GIB, MIB, make_image
from tests.vms.test_asking import client, offered, typed  # noqa: F401
from vms import guidance
from vms.asking import foresee, prospect_of

pytestmark = [pytest.mark.database, pytest.mark.django_db]


def told(client, offered, cast, **changes):  # noqa: F811
    answer = client.post(reverse("vms:what_if", args=[offered.item.pk]), typed(cast, offered, **changes))
    return answer.content.decode()


@pytest.mark.usefixtures("database")
def test_a_size_below_what_the_system_needs_is_told_and_not_refused(client, cast, offered):  # noqa: F811
    """Red when `foresee` does not ask `guidance.too_small`."""
    Image.objects.update(os="thing9")
    page = told(client, offered, cast)
    assert "Thing 9 needs at least 3 GiB of memory; this is 128 MiB." in page
    assert "Thing 9 needs at least a disk of 4 GiB; this is 256 MiB." in page
    answer = client.post(reverse("vms:ask", args=[offered.item.pk]), typed(cast, offered))
    assert answer.status_code == 302


@pytest.mark.usefixtures("database")
def test_whoever_decides_is_told_too(client, cast, offered):  # noqa: F811
    Image.objects.update(os="thing9")
    client.post(reverse("vms:ask", args=[offered.item.pk]), typed(cast, offered))
    [outlook] = foresee([prospect_of(Operation.objects.get())])
    assert any("Thing 9 needs at least" in warning for warning in outlook.warnings)


@pytest.mark.usefixtures("database")
def test_sizes_that_are_enough_are_not_spoken_of():
    assert guidance.too_small("thing9", {"vcpu": 1, "memory": 3 * GIB, "disk": 4 * GIB}) == []
    assert len(guidance.too_small("thing9", {"vcpu": 0, "memory": MIB, "disk": MIB})) == 3
    assert guidance.too_small("", {"vcpu": 0, "memory": 0, "disk": 0}) == []


@pytest.mark.usefixtures("database")
def test_the_page_of_an_image_says_what_is_known_and_whose_knowledge_it_is(client, chief):  # noqa: F811
    client.force_login(chief)
    image = make_image(os="thing12")
    page = client.get(reverse("vms:image", args=[image.pk])).content.decode()
    assert "thing12 (as Thing 10, the nearest that is known)" in page
    assert "UEFI firmware" in page


@pytest.mark.parametrize(
    ("os", "said"), [("", "Nobody said which system"), ("thing9", "osinfo-db is not installed")]
)
def test_the_page_works_without_the_database(client, chief, tmp_path, monkeypatch, os, said):  # noqa: F811
    """Red when `unknown` is not asked."""
    monkeypatch.setattr(osinfo, "FOLDERS", (tmp_path,))
    client.force_login(chief)
    image = make_image(os=os)
    answer = client.get(reverse("vms:image", args=[image.pk]))
    assert answer.status_code == 200
    assert said in answer.content.decode()


@pytest.mark.usefixtures("database")
def test_a_system_that_nobody_knows_is_said_to_be_unknown(client, chief):  # noqa: F811
    client.force_login(chief)
    page = client.get(reverse("vms:image", args=[make_image(os="other1").pk])).content.decode()
    assert "(osinfo-db) does not know other1" in page
