"""The pages of templates: what is refused stands at its field, nobody overwrites what they never saw."""

import pytest
from django.urls import reverse

from portal.audit.models import AuditEntry
from portal.core.errors import Denied
from vms import install_templates
from vms.models import InstallTemplate

pytestmark = [pytest.mark.database, pytest.mark.django_db]
VALUES = {"name": "Mine", "format": "preseed", "text": "d-i netcfg/get_hostname string $hostname\r\nnext"}


@pytest.fixture
def client(client, chief):
    client.force_login(chief)
    return client


@pytest.fixture
def template(chief):
    return install_templates.add(actor=chief, **VALUES)


def page(template):
    return reverse("vms:template_edit", args=[template.pk])


def posted(client, template, **changes):
    """Open the page, type and send."""
    form = client.get(page(template)).context["form"]
    return client.post(page(template), {**VALUES, "seen": form["seen"].value(), **changes})


def test_a_template_is_kept_with_the_line_ends_of_an_installer(client):
    """Red when a browser's carriage returns stay: a shell line of an installer would end in one."""
    client.post(reverse("vms:template_add"), VALUES)
    made = InstallTemplate.objects.get(name="Mine")
    assert made.text == "d-i netcfg/get_hostname string $hostname\nnext"
    assert "Mine" in client.get(reverse("vms:templates")).content.decode()


def test_what_cannot_be_used_is_refused_at_the_text(client):
    answer = client.post(reverse("vms:template_add"), VALUES | {"text": "$hostnam"})
    assert answer.status_code == 422
    assert "Nothing is called hostnam" in answer.context["form"].errors["text"][0]
    assert not InstallTemplate.objects.filter(name="Mine").exists()


def test_a_name_that_is_taken_is_refused_at_the_name(client, template):
    answer = client.post(reverse("vms:template_add"), VALUES)
    assert answer.status_code == 422 and "name" in answer.context["form"].errors


def test_a_change_is_in_the_trail_and_the_same_again_is_none(client, template):
    for _turn in range(2):
        assert posted(client, template, text="d-i $user").status_code == 302
    template.refresh_from_db()
    assert template.text == "d-i $user"
    assert AuditEntry.objects.filter(verb="install_template.changed").count() == 1


def test_what_somebody_else_changed_meanwhile_is_not_overwritten(client, chief, template):
    """Red when `change` does not compare what was seen."""
    seen = client.get(page(template)).context["form"]["seen"].value()
    InstallTemplate.objects.update(text="theirs")
    answer = client.post(page(template), {**VALUES, "text": "mine", "seen": seen})
    assert answer.status_code == 422 and "Somebody else changed it" in answer.content.decode()
    template.refresh_from_db()
    assert template.text == "theirs"
    again = {**VALUES, "text": "mine", "seen": answer.context["form"]["seen"].value()}
    assert client.post(page(template), again).status_code == 302


def test_it_is_deleted_once(client, template):
    client.post(reverse("vms:template_delete", args=[template.pk]))
    assert not InstallTemplate.objects.filter(name="Mine").exists()


def test_an_operator_of_one_project_keeps_none(cast):
    with pytest.raises(Denied, match="Only an operator of every project"):
        install_templates.add(actor=cast.operator, **VALUES)


def test_the_form_of_a_template_says_that_ubuntus_installer_asks_once(client, chief, template):
    client.force_login(chief)
    assert "Continue with autoinstall?" in client.get(page(template)).content.decode()
