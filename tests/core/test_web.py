"""What every page shares: headers, health, zones, the menu, tags, and what templates may hold."""

import re
import subprocess
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import redis
from django.conf import settings
from django.contrib.auth.models import AnonymousUser
from django.template import Context, Template
from django.test import RequestFactory
from django.urls import reverse
from django.utils import timezone

from portal.accounts.context import abilities
from portal.accounts.models import Membership, User
from portal.core.errors import Denied
from portal.core.templatetags import gatehouse
from portal.core.web import health
from portal.core.web.middleware import DeniedMiddleware, page_headers, zone_of
from portal.navigation import ENTRIES, menu

TEMPLATES = sorted((settings.BASE_DIR / "templates").rglob("*.html"))
ICONS = set((settings.BASE_DIR / "scripts/lib/icons.txt").read_text().split())


def render(source, **context):
    return Template(source).render(Context(context))


# Headers


@pytest.mark.database
@pytest.mark.django_db
def test_a_page_says_what_a_browser_may_do_with_it(client):
    response = client.get("/accounts/login/")
    policy = response.headers["Content-Security-Policy"]
    assert "unsafe" not in policy and "http" not in policy and "*" not in policy
    assert "frame-ancestors 'none'" in policy
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Referrer-Policy"] == "same-origin"
    assert response.headers["X-Frame-Options"] == "DENY"
    assert "camera=()" in response.headers["Permissions-Policy"]
    assert "private" in response.headers["Cache-Control"]


def test_the_policy_names_a_nonce_only_when_a_template_asked_for_one(rf):
    """Red when the policy is built before the page (`policy` moved above `get_response`)."""
    from django.http import HttpResponse

    asking = page_headers(lambda request: HttpResponse(str(request.csp_nonce)))(rf.get("/"))
    silent = page_headers(lambda request: HttpResponse())(rf.get("/"))
    assert f"style-src 'self' 'nonce-{asking.content.decode()}'" in asking.headers["Content-Security-Policy"]
    assert "nonce" not in silent.headers["Content-Security-Policy"]


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: str(path.relative_to(settings.BASE_DIR)))
def test_a_template_holds_nothing_that_the_policy_forbids(path):
    source = path.read_text()
    assert not re.search(r"<script(?![^>]*\bsrc=)", source), "an inline script"
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", source), "an inline style or handler"
    assert not re.search(r"\|\s*safe\b|autoescape off", source), "unescaped text"
    assert not re.search(r"(src|href)=\"(https?:)?//", source), "something from another origin"


def test_every_icon_that_is_drawn_is_in_the_list():
    drawn = {entry.icon for entry in ENTRIES} | set(gatehouse.SHAPES.values())
    for path in TEMPLATES:
        drawn |= set(re.findall(r"{% icon \"([^\"]+)\"", path.read_text()))
        drawn |= set(re.findall(r"icon_name=\"([^\"]+)\"", path.read_text()))
    assert drawn <= ICONS


# Health


@pytest.fixture
def own_redis(settings, tmp_path):
    """A Redis on a socket as scripts/run starts it, named by the settings alone."""
    socket = tmp_path / "redis.sock"
    command = [
        "redis-server",
        "--port",
        "0",
        "--unixsocket",
        str(socket),
        "--save",
        "",
        "--dir",
        str(tmp_path),
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            # The file is there a moment before anybody listens on it.
            client = redis.Redis(unix_socket_path=str(socket))
            for _ in range(1000):
                with suppress(redis.ConnectionError):
                    client.ping()
                    break
                time.sleep(0.01)
            client.close()
            settings.REDIS_URL = f"unix://{socket}"
            yield process
        finally:
            process.kill()


@pytest.mark.database
@pytest.mark.django_db
def test_health_is_told_to_who_is_not_signed_in(client, own_redis):
    assert client.get("/healthz/live").status_code == 200
    ready = client.get("/healthz/ready")
    assert (ready.status_code, ready.json()) == (200, {"ready": True, "failed": []})


@pytest.mark.database
@pytest.mark.django_db
def test_the_redis_of_this_portal_is_asked_though_no_variable_names_it(client, own_redis, monkeypatch):
    """Red when only a Redis that the environment names is asked."""
    monkeypatch.delenv("REDIS_URL", raising=False)
    assert client.get("/healthz/ready").status_code == 200
    own_redis.kill()
    own_redis.wait(5)
    assert client.get("/healthz/ready").json()["failed"] == ["redis"]


@pytest.mark.database
@pytest.mark.django_db
def test_a_redis_that_does_not_answer_is_named_without_its_password(client, settings):
    settings.REDIS_URL = "redis://:hush@127.0.0.1:1/0"
    ready = client.get("/healthz/ready")
    assert (ready.status_code, ready.json()["failed"]) == (503, ["redis"])
    assert b"hush" not in ready.content


@pytest.mark.database
@pytest.mark.django_db
def test_a_migration_that_is_missing_is_not_ready(client, own_redis, monkeypatch):
    monkeypatch.setattr(health, "_migrated", False)
    monkeypatch.setattr(health.MigrationExecutor, "migration_plan", lambda self, targets: ["one"])
    assert client.get("/healthz/ready").json()["failed"] == ["migrations"]


# Sign-in and refusals


@pytest.mark.database
@pytest.mark.django_db
def test_a_page_asks_to_sign_in_and_comes_back(client):
    response = client.get("/accounts/people/?q=a")
    assert response.status_code == 302
    assert response.url == "/accounts/login/?next=/accounts/people/%3Fq%3Da"


@pytest.mark.database
@pytest.mark.django_db
def test_htmx_without_a_session_moves_the_whole_page_to_sign_in(client):
    """Red when `ask_htmx_to_sign_in` leaves MIDDLEWARE: the sign-in page lands inside the page."""
    headers = {"HX-Request": "true", "HX-Current-URL": "http://testserver/accounts/people/"}
    response = client.get("/accounts/people/?page=2", headers=headers)
    assert response.headers["HX-Redirect"] == "/accounts/login/?next=/accounts/people/"


@pytest.mark.database
@pytest.mark.django_db
def test_a_refusal_that_no_view_caught_is_shown_with_its_reason(rf, client):
    request = rf.get("/")
    request.user, request.htmx = AnonymousUser(), False
    response = DeniedMiddleware(lambda request: None).process_exception(request, Denied("Not <today>."))
    assert response.status_code == 403
    assert b"Not &lt;today&gt;." in response.content
    request.htmx = True
    response = DeniedMiddleware(lambda request: None).process_exception(request, Denied("Not today."))
    assert response.headers["HX-Retarget"] == "#messages"
    assert b"<html" not in response.content


@pytest.mark.database
@pytest.mark.django_db
def test_a_form_from_elsewhere_is_refused_in_the_look_of_the_house():
    from django.test import Client

    response = Client(enforce_csrf_checks=True).post("/accounts/login/", {"login": "a", "password": "b"})
    assert response.status_code == 403
    assert b"Nothing was changed" in response.content and b"Gatehouse" in response.content
    piece = Client(enforce_csrf_checks=True).post("/accounts/login/", {}, headers={"HX-Request": "true"})
    assert piece.headers["HX-Retarget"] == "#messages" and b"<html" not in piece.content


@pytest.mark.database
@pytest.mark.django_db
def test_an_address_that_is_not_there_keeps_the_frame(client, cast):
    client.force_login(cast.admin)
    response = client.get("/nothing/")
    assert response.status_code == 404
    assert b'id="menu"' in response.content


def test_the_page_for_a_mistake_needs_no_database_and_no_context():
    from django.views.defaults import server_error

    assert b"Something went wrong" in server_error(RequestFactory().get("/")).content


# The menu


@pytest.mark.database
@pytest.mark.django_db
def test_the_menu_holds_only_what_a_role_can_use(cast, django_assert_num_queries):
    with django_assert_num_queries(2):
        can = abilities(cast.requester)
    with django_assert_num_queries(1):
        assert abilities(cast.approver)["decide"]
    assert can["request"] and not can["approve"] and not can["administer"]
    labels = {entry["label"] for group in menu(can, "/") for entry in group["entries"]}
    assert not labels & {"People", "Projects", "Inbox", "Audit trail"}


@pytest.mark.database
@pytest.mark.django_db
def test_people_stand_in_the_menu_of_who_administers_all_projects(cast):
    assert abilities(cast.admin)["administer"] and not abilities(cast.admin)["administer_everywhere"]
    Membership.objects.create(user=cast.admin, role="admin")
    groups = menu(abilities(cast.admin), "/accounts/people/7/")
    current = [entry["label"] for group in groups for entry in group["entries"] if entry["current"]]
    assert current == ["People"]


@pytest.mark.database
@pytest.mark.django_db
@pytest.mark.parametrize("name", ["vms:edit", "vms:copy"])
def test_a_request_that_is_changed_stands_under_asking(cast, name):
    groups = menu(abilities(cast.requester), reverse(name, args=[7]))
    current = [entry["label"] for group in groups for entry in group["entries"] if entry["current"]]
    assert current == ["Ask for a machine"]


@pytest.mark.database
@pytest.mark.django_db
def test_someone_inactive_and_someone_unknown_can_nothing(cast):
    cast.admin.is_active = False
    assert not any(value for value in abilities(cast.admin).values())
    assert not any(value for value in abilities(AnonymousUser()).values())


@pytest.mark.database
@pytest.mark.django_db
def test_the_first_page_of_who_has_no_role_is_the_profile(client):
    client.force_login(User.objects.create(username="nobody"))
    assert client.get("/").url == "/accounts/profile/"


# Tags


def test_sizes_are_said_in_gib():
    assert gatehouse.gib(2 * 1024**3) == "2 GiB"
    assert gatehouse.gib(3 * 1024**3 // 2) == "1.5 GiB"
    assert gatehouse.gib(256 * 1024**2) == "256 MiB"
    assert gatehouse.gib(0) == "0 GiB"
    assert gatehouse.gib(None) == "–"


@pytest.mark.parametrize(
    ("span", "words"),
    [
        (0, "0 s"),
        (59.9, "59 s"),
        (3600, "1 h"),
        (3661, "1 h 1 min"),
        (timedelta(days=3, hours=4, minutes=5), "3 days 4 h"),
        (timedelta(days=1, minutes=5), "1 day"),
        (-90, "-1 min 30 s"),
        (None, "–"),
    ],
)
def test_a_span_is_said_in_its_two_greatest_units(span, words):
    assert gatehouse.duration(span) == words


def test_an_instant_is_shown_in_the_readers_zone_and_exact_on_hover():
    at = datetime(2026, 1, 2, 23, 30, 15, tzinfo=UTC)
    with timezone.override(zone_of(None, {"zone": "Europe/Berlin"})):
        drawn = render("{% moment at %}", at=at)
    assert 'title="2026-01-03 00:30:15 CET"' in drawn and "3 Jan 2026 00:30" in drawn
    assert 'datetime="2026-01-03T00:30:15+01:00"' in drawn


@pytest.mark.parametrize("cookie", ["", "../../etc/passwd", "Europe/Nowhere", "\x00", "<b>", "Europe"])
def test_a_zone_that_nobody_knows_is_utc(cookie):
    assert zone_of(None, {"zone": cookie}).key == "UTC"


def test_the_zone_of_the_profile_goes_before_the_browsers():
    reader = User(time_zone="Asia/Tokyo")
    assert zone_of(reader, {"zone": "Europe/Berlin"}).key == "Asia/Tokyo"


def test_a_state_has_a_word_and_a_shape():
    drawn = render('{% state "Running" "good" %}')
    assert "Running" in drawn and "#circle-check" in drawn
    with pytest.raises(KeyError):
        render('{% state "Running" "gud" %}')


def test_a_form_shows_what_is_wrong_at_the_field():
    from portal.core.web.forms import ConfirmForm

    drawn = str(ConfirmForm({"confirm_name": "vm-2"}, name="vm-<1>"))
    assert "Type vm-&lt;1&gt; to confirm" in drawn
    assert 'aria-describedby="id_confirm_name_error"' in drawn and 'id="id_confirm_name_error"' in drawn
    assert 'class="form-control is-invalid"' in drawn
    assert ConfirmForm({"confirm_name": "vm-1"}, name="vm-1").is_valid()


def test_static_names_are_plain_where_nothing_was_collected(tmp_path):
    from portal.core.web.storage import StaticStorage

    assert StaticStorage(location=tmp_path, base_url="/static/").url("js/live.js") == "/static/js/live.js"


def test_nothing_lies_outside_the_folder_of_templates():
    assert Path(settings.TEMPLATES[0]["DIRS"][0]) == settings.BASE_DIR / "templates"
