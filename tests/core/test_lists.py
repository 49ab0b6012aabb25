"""What is searched by in the address of a list: hostile text is an answer, not an error."""

import pytest
from django.test import Client, RequestFactory
from django.urls import NoReverseMatch, get_resolver, reverse

from portal.core.web.lists import LONGEST_SEARCH, search_of
from tests.permissions.test_matrix import BACKEND, names
from tests.permissions.world import make_world

pytestmark = [pytest.mark.database, pytest.mark.django_db]
#: Every page with a search of its own, and the name in the world of what it lists.
LISTS = {
    "accounts:people": lambda world: world.owner.username,
    "accounts:projects": lambda world: world.project.name,
    "hosts:list": lambda world: world.host.name,
    "networks:list": lambda world: world.network.title,
    "operations:list": lambda world: world.running.title,
    "quotas:overview": lambda world: world.project.name,
    "vms:found": lambda world: world.foreign.observed_name,
    "vms:list": lambda world: world.machine.name,
    "vms:catalogue_admin": lambda world: world.unused.name,
    "vms:sizes": lambda world: world.size.name,
    "vms:images": lambda world: world.image.title,
}
#: The trail has filters; a form says what is wrong with them.
TRAIL = "audit:trail"


@pytest.fixture
def world(db):
    return make_world()


@pytest.fixture
def as_chief(world):
    client = Client()
    client.force_login(world.people["admin_everywhere"], BACKEND)
    return client


def plain_addresses():
    """Yield each address that names no row."""
    for name in names(get_resolver().url_patterns):
        try:
            yield name, reverse(name)
        except NoReverseMatch:
            continue


def test_every_list_finds_what_is_searched_whatever_stands_between(as_chief, world):
    """Red on PostgreSQL when one view reads `q` itself, on both when search_of() keeps NUL."""
    for name, named in LISTS.items():
        word = named(world)
        response = as_chief.get(reverse(name), {"q": f"\0{word[:2]}\0{word[2:]} \0"})
        assert (name, response.status_code, response.context["search"]) == (name, 200, word)
        assert response.context["page"].paginator.count >= 1, name
        assert as_chief.get(reverse(name), {"q": "no such thing"}).context["page"].paginator.count == 0, name


def test_no_page_breaks_by_its_query(as_chief):
    """Red on PostgreSQL when a view asks for a NUL of the address; on both when a list is not in LISTS."""
    nul = dict.fromkeys(("q", "sort", "page", "bin", "unread", "before", "after", "project", "next"), "\0")
    searched = set()
    for name, address in plain_addresses():
        if name in ("account_logout", "health_ready"):  # signs out; asks a Redis
            continue
        response = as_chief.get(address, nul)
        assert response.status_code < 500, name
        if b'role="search"' in response.content:
            searched.add(name)
    assert searched == {*LISTS, TRAIL}


@pytest.mark.parametrize("field", ["q", "actor", "verb", "type", "since", "until"])
def test_the_trail_says_what_is_wrong_with_a_filter(as_chief, field):
    """Red on PostgreSQL when the trail asks by what its form did not take."""
    response = as_chief.get(reverse(TRAIL), {field: "a\0b"})
    assert response.status_code == 422 and response.context["form"].errors[field]
    assert not response.context["rows"]


@pytest.mark.parametrize("field", ["before", "after"])
def test_the_trail_takes_no_key_that_is_none(as_chief, field):
    assert as_chief.get(reverse(TRAIL), {field: "1\0"}).status_code == 200


def test_a_link_with_a_nul_invites_nobody(as_chief):
    """Red on PostgreSQL when what stands in the address is looked for as it is."""
    assert as_chief.get(reverse("accounts:accept", args=["a\0b"])).status_code < 500


def test_a_search_is_no_longer_than_what_can_be_found():
    """Red when search_of() does not cut, or cuts before it strips."""
    request = RequestFactory().get("/", {"q": " " * 300 + "a" * LONGEST_SEARCH + "b"})
    assert search_of(request) == "a" * LONGEST_SEARCH
