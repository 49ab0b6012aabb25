"""Who keeps the catalogue."""

import pytest

from portal.accounts.models import Membership, Role, User


@pytest.fixture
def chief(cast):
    """Who administers every project."""
    person = User.objects.create(username="chief")
    Membership.objects.create(user=person, role=Role.ADMIN)
    return person
