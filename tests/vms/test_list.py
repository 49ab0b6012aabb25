"""The list of machines and a machine's page: as many queries for a thousand machines as for one."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from portal.core.web.lists import KeyedPaginator
from tests.bench import estate
from tests.factories import make_image
from vms.models import VirtualMachine

pytestmark = [pytest.mark.database, pytest.mark.django_db]
#: Session, person, roles for the rows, the count, the keys, the rows, roles for the menu, the bell, and the
#: projects in which the person asks for machines; for a requester what counters say of those, and defaults.
LIST_QUERIES = {"requester": 11, "chief": 8}
#: As on the list, the cards, which say how one comes there, what waits to extend the lease, and what of its
#: host a machine has.
DETAIL_QUERIES = {"requester": 16, "chief": 15}
SORTS = ("name", "-state", "host", "-host", "owner", "size", "lease")
PATHS = ("", "?q=0", *(f"?sort={sort}" for sort in SORTS))


@pytest.fixture(autouse=True)
def image(cast):
    """What the machines were made from."""
    return make_image()


def queries_of(client, path):
    with CaptureQueriesContext(connection) as queries:
        answer = client.get(path)
    assert answer.status_code == 200
    return len(queries), answer


def names(answer):
    return [vm.name for vm in answer.context["page"]]


@pytest.mark.parametrize("who", ["requester", "chief"])
def test_a_list_takes_as_many_queries_however_long_it_is(cast, chief, client, who):
    """Red when vms.live.visible selects no host along with the machines, or vms.views lists all in memory."""
    hosts = estate.hosts(["fake:///a", "fake:///b"])
    client.force_login(chief if who == "chief" else cast.requester)
    estate.machines(20, hosts)
    for path in PATHS:
        assert queries_of(client, f"/machines/{path}")[0] == LIST_QUERIES[who], path
    VirtualMachine.objects.update(owner=cast.requester)
    for path in (*PATHS, "?page=2"):
        assert queries_of(client, f"/machines/{path}")[0] == LIST_QUERIES[who], path


@pytest.mark.parametrize("who", ["requester", "chief"])
def test_a_machines_page_takes_as_many_queries_however_many_there_are(cast, chief, client, who):
    estate.machines(20, estate.hosts(["fake:///a"]))
    client.force_login(chief if who == "chief" else cast.requester)
    pk = VirtualMachine.objects.filter(owner=cast.requester, status="active").first().pk
    counted, _answer = queries_of(client, f"/machines/{pk}/")
    assert counted == DETAIL_QUERIES[who]


def test_pages_hold_every_row_once_in_the_order_asked_for(cast, chief, client):
    """Red when KeyedPaginator gives the rows as the second query does, without the order of the keys."""
    estate.machines(60, estate.hosts(["fake:///b", "fake:///a"]))
    client.force_login(chief)
    pages = [client.get(f"/machines/?sort=-host&page={number}") for number in (1, 2, 3)]
    shown = [name for page in pages for name in names(page)]
    wanted = VirtualMachine.objects.exclude(status="binned").order_by("-host__name", "name")
    assert shown == list(wanted.values_list("name", flat=True)) and len(shown) == 57


def test_a_row_that_went_between_the_queries_is_left_out(cast, chief, monkeypatch):
    estate.machines(10, estate.hosts(["fake:///a"]))
    rows = VirtualMachine.objects.order_by("name")
    first = rows[0].pk
    real = type(rows).in_bulk

    def gone(self, keys):
        return real(self, [key for key in keys if key != first])

    monkeypatch.setattr(type(rows), "in_bulk", gone)
    page = KeyedPaginator(rows, 5).get_page(1)
    assert len(page.object_list) == 4


def test_who_may_see_everything_costs_no_subquery(cast, chief):
    """Red when RoleBackend answers a role in every project with a condition on the project."""
    sql = str(VirtualMachine.objects.restrict(chief, "view").query)
    assert "WHERE" not in sql and "IN (" not in sql
    assert "IN (" in str(VirtualMachine.objects.restrict(cast.requester, "view").query)
