"""Roles are read once while a page is read, and anew by everything that changes something."""

import pytest
from django.http import HttpResponse
from django.test import RequestFactory

from portal.accounts.backends import may, read_once
from portal.accounts.models import Membership

pytestmark = [pytest.mark.database, pytest.mark.django_db]


@pytest.fixture
def answers(cast):
    """Return whether the approver may approve, as a page finds it before and after losing the role."""

    def ask(method):
        found = []

        def page(request):
            found.append(may(cast.approver, "approve", cast.project))
            Membership.objects.filter(user=cast.approver).delete()
            found.append(may(cast.approver, "approve", cast.project))
            return HttpResponse()

        read_once(page)(RequestFactory().generic(method, "/"))
        return found

    return ask


def test_a_page_that_is_read_asks_once(answers, cast):
    """Red when read_once sets nothing, or leaves behind what it read: the next page must ask anew."""
    assert answers("GET") == [True, True]
    assert not may(cast.approver, "approve", cast.project)
    assert answers("GET") == [False, False]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_what_changes_something_asks_each_time(answers, method):
    """Red when read_once makes no difference between methods."""
    assert answers(method) == [True, False]


def test_one_person_is_not_taken_for_another(cast, django_assert_num_queries):
    """Red when what was read is kept without whose it is."""

    def page(request):
        with django_assert_num_queries(2):
            for _turn in range(3):
                assert may(cast.approver, "approve", cast.project)
                assert not may(cast.requester, "approve", cast.project)
                assert not may(cast.requester, "approve", None)
        return HttpResponse()

    read_once(page)(RequestFactory().get("/"))


def test_an_action_that_nobody_defined_is_an_error(cast):
    with pytest.raises(KeyError):
        may(cast.approver, "aprove", cast.project)
