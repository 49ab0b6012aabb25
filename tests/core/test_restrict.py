"""Someone else's rows are not there."""

import pytest

from portal.accounts.models import Membership, Project, User
from tests.factories import make_image
from vms.models import CatalogueItem

pytestmark = [pytest.mark.database, pytest.mark.django_db]


def test_rows_of_other_projects_are_not_there(cast):
    other = Project.objects.create(name="other")
    assert list(Project.objects.restrict(cast.requester, "view")) == [cast.project]
    assert other not in Project.objects.restrict(cast.admin, "view")


def test_a_role_in_every_project_reaches_all(cast):
    Project.objects.create(name="other")
    auditor = User.objects.create(username="everywhere")
    Membership.objects.create(user=auditor, role="auditor")
    assert Project.objects.restrict(auditor, "audit").count() == 2
    assert not Project.objects.restrict(auditor, "operate").exists()


def test_two_roles_in_a_project_show_it_once(cast):
    Membership.objects.create(user=cast.requester, project=cast.project, role="approver")
    assert Project.objects.restrict(cast.requester, "view").count() == 1


def test_a_row_that_is_shared_with_two_of_ones_projects_is_there_once(cast):
    """Red when restrict() uses a condition that joins another table as it is."""
    item = CatalogueItem.objects.create(
        name="Shared", description="", image=make_image(), every_project=False
    )
    other = Project.objects.create(name="other")
    Membership.objects.create(user=cast.requester, project=other, role="requester")
    item.projects.set([cast.project, other])
    assert CatalogueItem.objects.restrict(cast.requester, "request").count() == 1
    item.projects.clear()
    assert not CatalogueItem.objects.restrict(cast.requester, "request").exists()


def test_someone_inactive_sees_nothing(cast):
    cast.admin.is_active = False
    assert not Project.objects.restrict(cast.admin, "view").exists()


def test_a_misspelt_action_is_an_error_not_a_no(cast):
    with pytest.raises(KeyError):
        Project.objects.restrict(cast.admin, "veiw")
