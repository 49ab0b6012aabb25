"""The trail's page and its downloads: who sees them, what the filters keep, what an outsider can verify."""

import asyncio
import csv
import hashlib
import importlib
import io
import json
import re
import subprocess
import threading
from datetime import UTC, datetime

import pytest
from django.core.cache import cache
from django.core.handlers.asgi import ASGIRequest
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from portal.accounts.models import Membership, Role, User
from portal.audit import paper, report, services
from portal.audit.models import AuditEntry
from portal.audit.services import record, seal_pending, verify_bounded
from portal.core.web.streaming import stream

pytestmark = [pytest.mark.database, pytest.mark.django_db]

PAGE = "/audit/"
HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(autouse=True)
def no_known_facets():
    cache.clear()


@pytest.fixture
def auditor(cast):
    person = User.objects.create(username="outsider")
    Membership.objects.create(user=person, role=Role.AUDITOR)
    return person


@pytest.fixture
def as_auditor(client, auditor):
    client.force_login(auditor)
    return client


def write(number, *, actor="worker", verb="project.changed", target, **values):
    with transaction.atomic():
        return [
            record(actor=actor, verb=verb, target=target, **(values or {"after": {"n": n}}))
            for n in range(number)
        ]


def shown(response):
    return [entry.pk for entry, _changes in response.context["rows"]]


def body(response):
    return b"".join(response.streaming_content).decode()


@pytest.mark.parametrize("role", Role.values)
def test_a_role_in_one_project_does_not_open_the_trail(client, cast, role):
    """Red when `_entries` does not raise."""
    client.force_login(getattr(cast, role))
    before = AuditEntry.objects.count()
    assert client.get(PAGE).status_code == 404
    for name in ("verify", "download_csv", "download_json", "download_pdf"):
        assert client.post(reverse(f"audit:{name}")).status_code == 404
    assert AuditEntry.objects.count() == before


@pytest.mark.parametrize("role, status", [("auditor", 200), ("admin", 200), ("operator", 404)])
def test_a_role_in_every_project_does_if_it_audits(client, cast, role, status):
    """Also while the trail is empty. Red when `allowed` asks its own rows, or `estate` leaves AuditEntry."""
    person = User.objects.create(username="everywhere")
    Membership.objects.create(user=person, role=role)
    client.force_login(person)
    assert not AuditEntry.objects.exists()
    assert client.get(PAGE).status_code == status


def test_nothing_is_changed_by_get_and_nothing_without_a_token(auditor):
    careful = Client(enforce_csrf_checks=True)
    careful.force_login(auditor)
    for name in ("verify", "download_csv", "download_json", "download_pdf"):
        assert careful.get(reverse(f"audit:{name}")).status_code == 405
        assert careful.post(reverse(f"audit:{name}")).status_code == 403
    assert not AuditEntry.objects.exists()


@pytest.mark.parametrize(
    "query, kept",
    [
        ({"actor": "worker"}, {"first", "last"}),
        ({"actor": "work"}, set()),
        ({"verb": "vm.create"}, {"first"}),
        ({"type": "accounts.user"}, {"other"}),
        ({"q": "OUTSID"}, {"other"}),
        ({"since": "2026-05-01T12:00"}, {"other", "last"}),
        ({"until": "2026-05-01T12:00"}, {"first"}),
        ({"since": "2026-05-01T12:00", "until": "2026-05-01T12:01"}, {"other"}),
    ],
)
def test_filters(as_auditor, auditor, cast, monkeypatch, query, kept):
    """Red for each filter when its line leaves `FilterForm.condition`."""
    made = {}
    for name, verb, day, actor, target in (
        ("first", "vm.create", 30, "worker", cast.project),
        ("other", "vm.stop", 31, "boss", auditor),
        ("last", "vm.stop", 32, "worker", cast.project),
    ):
        at = datetime(2026, 4 + (day > 30), (day - 1) % 30 + 1, 12, tzinfo=UTC)
        monkeypatch.setattr(services.timezone, "now", lambda at=at: at)
        made[name] = write(1, actor=actor, verb=verb, target=target)[0].pk
    monkeypatch.undo()
    found = as_auditor.get(PAGE, query)
    assert set(shown(found)) == {made[name] for name in kept}
    line = body(as_auditor.post(reverse("audit:download_json"), query)).splitlines()
    assert {json.loads(text)["id"] for text in line[1:]} == {made[name] for name in kept}


@pytest.mark.parametrize(
    "query", [{"since": "yesterday"}, {"since": "2026-02-02T10:00", "until": "2026-02-02T10:00"}]
)
def test_a_filter_that_cannot_be_used_is_said_and_downloads_nothing(as_auditor, cast, query):
    write(1, target=cast.project)
    assert as_auditor.get(PAGE, query).status_code == 422
    assert as_auditor.post(reverse("audit:download_csv"), query).status_code == 422
    assert AuditEntry.objects.count() == 1


def test_pages_go_older_and_back_by_key_with_the_filters(as_auditor, cast):
    """Red when `slice` does not turn the newer rows round, or a link drops the filters."""
    keys = [entry.pk for entry in write(120, target=cast.project)][::-1]
    write(3, actor="other", target=cast.project)
    first = as_auditor.get(PAGE, {"actor": "worker"})
    assert shown(first) == keys[:50] and first.context["cut"].newer is None
    # The link, and the same for htmx.
    assert first.content.decode().count(f"actor=worker&amp;before={keys[49]}") == 2
    second = as_auditor.get(PAGE, {"actor": "worker", "before": keys[49]})
    assert shown(second) == keys[50:100]
    last = as_auditor.get(PAGE, {"actor": "worker", "before": keys[99]})
    assert shown(last) == keys[100:] and last.context["cut"].older is None
    assert shown(as_auditor.get(PAGE, {"actor": "worker", "after": keys[50]})) == keys[:50]
    assert shown(as_auditor.get(PAGE, {"actor": "worker", "before": "9" * 40})) == keys[:50]


def test_the_number_of_queries_does_not_grow(as_auditor, cast):
    """Red when a row asks the database for anything."""
    counts = []
    for more in (2, 60):
        write(more, target=cast.project)
        seal_pending()
        cache.clear()
        with CaptureQueriesContext(connection) as queries:
            assert as_auditor.get(PAGE).status_code == 200
        counts.append(len(queries))
    assert counts[0] == counts[1]


def test_verifying_asks_twice_for_500_seals(cast):
    """Red when `verify` asks for each entry by itself."""
    write(60, target=cast.project)
    seal_pending()
    with CaptureQueriesContext(connection) as queries:
        assert list(services.verify()) == []
    assert len(queries) == 3


def test_hostile_names_are_text(as_auditor, cast):
    cast.project.name = HOSTILE
    write(1, actor=HOSTILE, target=cast.project, before={HOSTILE: HOSTILE}, after=None)
    page = as_auditor.get(PAGE, {"q": "script"}).content.decode()
    assert HOSTILE not in page and page.count("&lt;script&gt;alert(1)") >= 4
    html = report.report_html(AuditEntry.objects, actor="x", filters=[HOSTILE], verification=verify_bounded())
    assert HOSTILE not in html


def test_an_entry_reads_as_a_difference():
    """Red when `_leaves` does not go into dictionaries."""
    before = {"sizes": {"vcpu": 4, "disk": 1}, "why": "x"}
    entry = AuditEntry(before=before, after={"sizes": {"vcpu": 2, "disk": 1}})
    found = [(change.path, change.before, change.after, change.kind) for change in report.difference(entry)]
    assert found == [
        ("sizes.vcpu", "4", "2", "changed"),
        ("why", "x", None, "removed"),
        ("sizes.disk", "1", "1", "same"),
    ]


def test_verify_now_is_recorded_and_shown(as_auditor, cast):
    write(3, target=cast.project)
    seal_pending()
    write(2, target=cast.project)
    page = as_auditor.post(reverse("audit:verify"), follow=True)
    entry = AuditEntry.objects.get(verb="audit.verified")
    assert (entry.actor_name, entry.after["holds"], entry.after["verified"]) == ("outsider", True, 3)
    assert "The chain holds" in page.content.decode()
    # The two, and the entry of the verification.
    assert page.context["unsealed"] == 3


def test_the_bounded_verification_continues_the_seal_before_it(cast, monkeypatch):
    """Red when `_start` returns GENESIS."""
    write(5, target=cast.project)
    seal_pending()
    monkeypatch.setattr(services, "VERIFY_LIMIT", 2)
    found = verify_bounded()
    assert (found.holds, found.verified, found.seals, found.whole) == (True, 2, 5, False)


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_no_cell_is_a_formula(as_auditor, cast, start):
    """Red when `safe_cell` returns its text as it is."""
    formula = f'{start}cmd|" /C calc"!A0'
    cast.project.name = formula
    write(1, actor=formula, verb=formula, target=cast.project)
    text = body(as_auditor.post(reverse("audit:download_csv")))
    rows = list(csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline="")))
    assert len(rows) == 2 and [rows[1][place] for place in (3, 4, 7)] == [f"'{formula}"] * 3
    assert not [cell for cell in rows[1] if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]


def sha(value):
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def holds(lines):
    """Verify the JSON lines as their description says, without the portal's code."""
    head, *entries = [json.loads(line) for line in lines]
    previous = "0" * 64
    for line in sorted(entries, key=lambda line: line["seal_number"]):
        link = {"entry_hash": sha(line["entry"]), "entry_id": line["id"], "previous": previous}
        if (line["entry_hash"], line["previous"], line["seal"]) != (link["entry_hash"], previous, sha(link)):
            return False
        previous = line["seal"]
    return previous == head["head"]


def test_an_outsider_can_verify_the_json_lines(as_auditor, cast):
    """Red when `_line` leaves out a column the head is of another moment."""
    write(700, target=cast.project, before={"Größe": [1, None, "<&'\""]}, after={"a": 1.5})
    seal_pending()
    lines = body(as_auditor.post(reverse("audit:download_json"))).splitlines()
    assert len(lines) == 701 and holds(lines)
    assert not holds([line.replace("worker", "nobody") for line in lines])
    assert not holds(lines[:300] + lines[301:])
    entry = AuditEntry.objects.get(verb="audit.exported")
    assert (entry.actor_name, entry.after["form"], entry.target_type) == ("outsider", "jsonl", "audit.trail")


def test_what_is_sealed_while_a_file_is_written_is_not_in_it(as_auditor, cast):
    """Red when the seals are read without a limit: the last one is not the head that the file names."""
    write(3, target=cast.project)
    seal_pending()
    write(2, target=cast.project)
    answer = as_auditor.post(reverse("audit:download_json"))
    # The file is written while it is read: now.
    seal_pending()
    lines = body(answer).splitlines()
    sealed = [line for line in lines if json.loads(line).get("seal_number", 1)]
    assert (len(lines), len(sealed)) == (6, 4) and holds(sealed)


def test_a_download_is_sent_while_it_is_read():
    """Red when stream() hands ASGI a list, or a plain iterator, which Django reads to its end first."""
    pulled = []

    def lines():
        for number in range(1000):
            pulled.append(number)
            yield f"{number}\n"

    async def first():
        scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b""}
        request = ASGIRequest(scope, io.BytesIO())
        response = stream(request, lines(), content_type="text/csv", name="trail.csv")
        assert response.streaming and response.is_async
        return await anext(aiter(response))

    assert asyncio.run(first()) == b"0\n" and pulled == [0]


def test_of_many_reports_at_once_some_are_asked_to_wait(as_auditor, cast, monkeypatch):
    """Red when pdf_of makes as many as are asked for."""
    monkeypatch.setattr(paper, "_room", threading.BoundedSemaphore(1))
    with paper._room:
        refused = as_auditor.post(reverse("audit:download_pdf"))
    assert refused.status_code == 403 and "Try again in a minute" in refused.content.decode()


def test_a_report_that_takes_too_long_is_given_up(as_auditor, cast, monkeypatch):
    """Red when the child has no limit."""
    monkeypatch.setattr(paper, "LIMIT", 0.01)
    refused = as_auditor.post(reverse("audit:download_pdf"))
    assert refused.status_code == 403 and "took too long" in refused.content.decode()
    assert paper._room.acquire(blocking=False)
    paper._room.release()


def test_a_download_says_its_filters_in_the_trail(as_auditor, cast):
    write(1, target=cast.project)
    as_auditor.post(reverse("audit:download_csv"), {"verb": "vm.create", "since": "2026-05-01T12:00"})
    recorded = AuditEntry.objects.get(verb="audit.exported").after
    assert recorded["filters"] == ["Verb vm.create", "From 2026-05-01 12:00 UTC"]


@pytest.fixture
def layout():
    """What lays out; not imported above: it takes half a second in every process that collects tests."""
    return importlib.import_module("portal.audit.layout")


@pytest.mark.slow
def test_the_report_carries_the_end_of_the_chain(as_auditor, auditor, cast, layout, monkeypatch):
    """Red when the head leaves report.html, or the limit is not said."""
    write(4, target=cast.project)
    seal_pending()
    found = verify_bounded()
    monkeypatch.setattr(report, "ENTRIES_LIMIT", 3)
    html = report.report_html(AuditEntry.objects.all(), actor=auditor, filters=[], verification=found)
    assert html.count(found.head) == 2 and "newest 3 of 4 entries" in html and "The chain holds" in html
    pdf = layout.lay_out(html, uncompressed_pdf=True)
    assert pdf.startswith(b"%PDF") and found.head.encode() in pdf
    sent = as_auditor.post(reverse("audit:download_pdf"))
    assert sent.headers["Content-Type"] == "application/pdf" and sent.content.startswith(b"%PDF")


@pytest.mark.slow
def test_the_report_says_what_it_is_about_on_paper(as_auditor, auditor, cast, tmp_path):
    """Red when the download leaves out its filters, or one table of totals lies over the other."""
    write(3, target=cast.project)
    write(2, target=cast.project, verb="example.other")
    seal_pending()
    head = verify_bounded().head
    sent = as_auditor.post(reverse("audit:download_pdf"), {"verb": "example.other"})
    (tmp_path / "report.pdf").write_bytes(sent.content)
    command = ["pdftotext", "-layout", tmp_path / "report.pdf", "-"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    text = done.stdout.decode()
    assert "2 entries of the audit trail" in text and head in text and "The chain holds" in text
    assert re.search(r"Scope\s.*example\.other", text)
    assert re.search(r"Period\s+\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", text)
    assert re.search(rf"Made by\s+{auditor.username}\b", text)
    assert re.search(r"example\.other\s+2\b", text) and "project.changed" not in text


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/a.png", "file:///etc/hostname", "static:../manage.py", "static:/etc/hostname"]
)
def test_the_report_reads_nothing_but_its_own_files(layout, url):
    """Red when `OwnFiles.fetch` does not raise."""
    with pytest.raises(ValueError, match="may not read"):
        layout.OwnFiles().fetch(url)
