"""Who administers everybody, and what tests of people do again and again."""

import pytest
from django.contrib.auth.hashers import make_password
from django.core.cache import cache

from portal.accounts import services
from portal.audit.models import AuditEntry

PASSWORD = "a gate with 2 towers"


@pytest.fixture
def no_counted_attempts():
    cache.clear()


@pytest.fixture
def chief(chief):
    """The one of every test, who can sign in here and be written to."""
    chief.email, chief.password = "chief@example.org", make_password(PASSWORD)
    chief.save()
    return chief


@pytest.fixture
def as_chief(client, chief):
    client.force_login(chief)
    return client


def verbs():
    return list(AuditEntry.objects.order_by("pk").values_list("verb", flat=True))


def invited(actor, project, **more):
    return services.invite(actor=actor, project=project, role="requester", link_for="/i/{}".format, **more)


def token_of(made):
    return made.link.removeprefix("/i/")


def newcomer(token, name="newcomer", **more):
    return services.accept_invitation(
        token=token,
        username=name,
        email=f"{name}@example.org",
        first_name="",
        last_name="",
        password=PASSWORD,
        **more,
    )
