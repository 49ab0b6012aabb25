"""Every address of the URLconf, asked by everybody of `world.py`, by GET and by POST, against `table.py`."""

from contextlib import contextmanager
from http.cookies import SimpleCookie

import pytest
from django.apps import apps
from django.core.cache import cache
from django.db import connection, transaction
from django.http import HttpResponseNotFound
from django.test import Client
from django.urls import URLResolver, get_resolver, reverse
from django.views.defaults import page_not_found

from portal.audit.models import AuditEntry
from portal.core.web import health
from portal.live import panels
from portal.live.consumer import _render as live_render
from tests.permissions import table
from tests.permissions.answers import CHANGED, LOGIN, REFUSED
from tests.permissions.world import ANONYMOUS, EVERYBODY, make_world

pytestmark = [pytest.mark.database, pytest.mark.django_db]
BACKEND = "allauth.account.auth_backends.AuthenticationBackend"
LINES = {line.url: line for line in table.LINES}
#: What a request may write by GET: its own session, nothing that anybody else sees.
OWN_TABLES = ('"django_session"',)


def names(patterns, prefix=""):
    """Yield the name of every address, with its namespaces."""
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            inner = f"{prefix}{pattern.namespace}:" if pattern.namespace else prefix
            yield from names(pattern.url_patterns, inner)
        else:
            yield f"{prefix}{pattern.name}"


def test_every_address_has_a_line_and_every_line_an_address():
    """Red when a path is added to any urls.py, or loses its name."""
    assert sorted(LINES) == sorted(names(get_resolver().url_patterns))
    assert len(LINES) == len(table.LINES)


@pytest.fixture(scope="module")
def made(django_db_setup, django_db_blocker):
    """The world, made once: every test runs in a savepoint of this transaction and takes back what it did."""
    around = transaction.atomic()
    with django_db_blocker.unblock():
        around.__enter__()
        world = make_world()
    yield world
    with django_db_blocker.unblock():
        transaction.set_rollback(True)
        around.__exit__(None, None, None)


@pytest.fixture
def world(made, monkeypatch):
    cache.clear()  # attempts to sign in are counted there, by address
    monkeypatch.setattr(health, "_redis", lambda: True)  # none runs here; tests/core asks a real one
    drawn = []

    def not_found(request, exception):
        """Draw the page once a person: it is the same for every address, and takes longer than the answer."""
        drawn.append(request.path)
        return page_not_found(request, exception) if len(drawn) == 1 else HttpResponseNotFound()

    monkeypatch.setattr("portal.urls.handler404", not_found, raising=False)
    return made


def address(line, world):
    kwargs = dict(line.kwargs)
    if line.row:
        kwargs["pk"] = getattr(world, line.row).pk
    if line.url == "accounts:accept":
        kwargs["token"] = world.invited.link
    return reverse(line.url, kwargs=kwargs)


def outcome(response):
    """Return the status, or that the person was asked to sign in."""
    location = response.headers.get("Location", "")
    asked = response.status_code == 302 and location.startswith(f"{reverse('account_login')}?next=")
    return LOGIN if asked else response.status_code


def rows():
    """Return how many rows each model has, by one query."""
    counted = [model._meta.db_table for model in apps.get_models() if model._meta.label != "sessions.Session"]
    with connection.cursor() as cursor:
        cursor.execute(" UNION ALL ".join(f"SELECT '{name}', count(*) FROM {name}" for name in counted))
        return dict(cursor.fetchall())


@contextmanager
def nothing_written(what):
    """Fail for any statement that writes, but to the person's own session."""
    written = []

    def look(execute, sql, params, many, context):
        if not sql.lstrip("( \n").startswith(("SELECT", "SAVEPOINT", "RELEASE", "ROLLBACK")):
            written.append(sql)
        return execute(sql, params, many, context)

    with connection.execute_wrapper(look):
        yield
    assert [sql for sql in written if not any(table in sql for table in OWN_TABLES)] == [], what


@contextmanager
def undone(client):
    """Take back whatever happens inside, so that the next address finds the same world and person."""
    cookies = SimpleCookie(client.cookies.output(header="", sep=";"))
    with transaction.atomic():
        yield
        transaction.set_rollback(True)
    client.cookies = cookies


def browser(world, name, **options):
    """A browser in which one of EVERYBODY is signed in."""
    client = Client(**options)
    if name != ANONYMOUS:
        client.force_login(world.people[name], BACKEND)
    return client


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERYBODY)
def test_get_shows_what_is_theirs_and_changes_nothing(world, name):
    """Red when a view's restrict() becomes all(), or a view writes by GET."""
    client, found = browser(world, name), {}
    for url, line in LINES.items():
        with undone(client), nothing_written(url):
            found[url] = outcome(client.get(address(line, world)))
    assert found == {url: line.get[name] for url, line in LINES.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERYBODY)
def test_post_changes_what_they_may_and_nothing_else(world, name):
    """Red when a service leaves out its check: what was refused is a change then."""
    client, found = browser(world, name), {}
    before = rows(), AuditEntry.objects.count()
    for url, line in LINES.items():
        expected = line.post[name]
        with undone(client):
            status = outcome(client.post(address(line, world), line.data(world)))
            after = rows(), AuditEntry.objects.count()
        if isinstance(expected, tuple) and expected[1] == CHANGED:
            # What changed stands in the trail, or the line says why not.
            assert (after[1] > before[1]) is not bool(line.silent), url
            found[url] = status, CHANGED
        else:
            assert after == before, url
            found[url] = (status, REFUSED) if isinstance(expected, tuple) else status
    assert found == {url: line.post[name] for url, line in LINES.items()}


@pytest.mark.slow
def test_a_post_without_its_token_is_refused_everywhere(world):
    """Red when a view is exempt from the CSRF check."""
    client = browser(world, "admin_everywhere", enforce_csrf_checks=True)
    before = rows()
    found = {url: client.post(address(line, world), line.data(world)) for url, line in LINES.items()}
    assert {url for url, response in found.items() if response.status_code != 403} == set()
    assert rows() == before


def test_every_live_panel_has_a_line():
    """Red when a room registers a panel that PANELS does not hold."""
    assert set(table.PANELS) == set(panels._panels)


@pytest.mark.parametrize("panel", sorted(table.PANELS))
def test_the_live_socket_sends_each_what_is_theirs(world, panel):
    """Red when a panel fetches without restrict()."""
    row, sees = table.PANELS[panel]
    key = f"{panel}:{getattr(world, row).pk}"
    found = set()
    for name, person in world.people.items():
        with nothing_written(panel):
            fragments, gone = live_render(person.pk, [key])
        assert bool(fragments) is not bool(gone)
        found |= {name} if fragments else set()
    assert found == set(sees)
