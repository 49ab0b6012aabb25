"""Notices: whom they reach, what their pages show, and the bell."""

from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from portal.accounts import notices
from portal.accounts.live import _bell, _newer
from portal.accounts.models import Notice, User

pytestmark = [pytest.mark.database, pytest.mark.django_db]
KIND = "request.decided"


@pytest.fixture
def people(cast):
    for number, person in enumerate((cast.requester, cast.approver, cast.operator)):
        person.email = f"person{number}@example.org"
        person.save()
    return cast


def tell(*people, **more):
    return notices.notify(**{"people": people, "kind": KIND, "text": "Approved: Create example"} | more)


def test_everybody_is_told_once_but_who_did_it_and_who_may_not_sign_in(people):
    """Red when notify() tells also `by`, or people who are deactivated."""
    User.objects.filter(pk=people.operator.pk).update(is_active=False)
    people.operator.refresh_from_db()
    told = [people.requester, people.requester, people.approver, people.operator, people.admin]
    assert tell(*told, by=people.approver) == 2
    assert set(Notice.objects.values_list("person", flat=True)) == {people.requester.pk, people.admin.pk}


def test_what_is_rolled_back_told_nobody(people):
    with transaction.atomic():
        tell(people.requester)
        transaction.set_rollback(True)
    assert not Notice.objects.exists()


def test_only_who_has_an_address_and_wants_it_gets_a_mail(people):
    """Red when notify() asks no choice, or makes a mail for nobody's address."""
    notices.choose_mails(actor=people.approver, wanted=["request.waits"])
    tell(people.requester, people.approver, people.admin)
    states = dict(Notice.objects.values_list("person__username", "mail"))
    assert states == {"requester": "due", "approver": "none", "admin": "none"}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("one\r\nBcc: all@example.org", "one Bcc: all@example.org"),
        ("a\x00b\x1b[31mc\u2028d\u202ee", "a b [31mc d e"),
        ("x" * 300, "x" * 199 + "…"),
    ],
)
def test_a_notice_is_one_line(people, text, line):
    """Red when one_line() leaves controls in it."""
    tell(people.requester, text=text)
    assert Notice.objects.get().text == line


def test_a_kind_that_nobody_registered_is_an_error(people):
    with pytest.raises(KeyError):
        tell(people.requester, kind="request.misspelt")


def test_what_is_settled_is_read_and_mails_nobody_any_more(people):
    """Red when take_back() leaves the mail due, or looks at no kind."""
    tell(people.requester, people.approver, kind="request.waits", about="operations.operation:1")
    tell(people.requester, about="operations.operation:1")
    notices.take_back(kind="request.waits", about="operations.operation:1")
    assert notices.unread(people.approver) == 0
    assert list(Notice.objects.filter(mail="due").values_list("kind", flat=True)) == [KIND]
    assert notices.unread(people.requester) == 1


def test_old_notices_are_forgotten_and_unread_ones_later(people):
    """Red when forget() takes what nobody has read yet after 90 days."""
    ages = {"new": (1, True), "read": (91, True), "unread": (91, False), "ancient": (366, False)}
    for text, (days, read) in ages.items():
        tell(people.requester, text=text)
        at = timezone.now() - timedelta(days=days)
        Notice.objects.filter(text=text).update(created_at=at, read_at=at if read else None)
    assert notices.forget() == 2
    assert set(Notice.objects.values_list("text", flat=True)) == {"new", "unread"}


def test_the_page_shows_ones_own_escaped_and_the_bell_counts(client, people):
    tell(people.requester, text="<b>x</b> & more", detail="<script>", link="/requests/")
    tell(people.approver, text="of somebody else")
    client.force_login(people.requester)
    page = client.get(reverse("accounts:notices")).content.decode()
    assert "&lt;b&gt;x&lt;/b&gt;" in page and "<script>alert" not in page and "&lt;script&gt;" in page
    assert "of somebody else" not in page
    assert "Notices, 1 unread notice" in " ".join(page.split())


def test_a_click_marks_read_and_leads_on_and_a_get_changes_nothing(client, people):
    tell(people.requester, link="/requests/")
    url = reverse("accounts:notice_open", args=[Notice.objects.get().pk])
    client.force_login(people.requester)
    assert client.get(url).status_code == 405
    assert client.post(url).url == "/requests/"
    assert notices.unread(people.requester) == 0


def test_nobody_opens_or_marks_what_is_anothers(client, people):
    """Red when follow() fetches from all notices, or mark_read() marks everybody's."""
    tell(people.requester, people.approver)
    client.force_login(people.approver)
    theirs = people.requester.notices.get()
    assert client.post(reverse("accounts:notice_open", args=[theirs.pk])).status_code == 404
    client.post(reverse("accounts:notices_read"), {"up_to": theirs.pk + 10})
    assert (notices.unread(people.requester), notices.unread(people.approver)) == (1, 0)


@pytest.mark.parametrize("up_to", ["", "x", "-1", "9" * 40])
def test_marking_all_read_spares_what_came_later_and_takes_no_nonsense(client, people, up_to):
    """Red when read_all() marks without looking at up_to."""
    tell(people.requester)
    seen = Notice.objects.get().pk
    tell(people.requester)
    client.force_login(people.requester)
    assert client.post(reverse("accounts:notices_read"), {"up_to": up_to}).status_code == 302
    assert notices.unread(people.requester) == 2
    client.post(reverse("accounts:notices_read"), {"up_to": seen})
    assert notices.unread(people.requester) == 1
    page = client.get(reverse("accounts:notices"), {"unread": "1"}).content.decode()
    assert page.count("notice-unread") == 1


def test_the_list_asks_as_many_queries_for_many_as_for_one(client, people):
    client.force_login(people.requester)
    tell(people.requester)
    with CaptureQueriesContext(connection) as one:
        client.get(reverse("accounts:notices"))
    for _ in range(40):
        tell(people.requester)
    with CaptureQueriesContext(connection) as many:
        page = client.get(reverse("accounts:notices")).content.decode()
    assert len(many) == len(one)
    assert page.count('class="notice ') == 25


def test_the_bell_and_the_hint_are_sent_to_their_owner_alone(people):
    """Red when _bell() renders whatever was asked for."""
    tell(people.requester)
    first = Notice.objects.get().pk
    tell(people.requester)
    mine, other = str(people.requester.pk), str(people.approver.pk)
    assert set(_bell(people.requester, [mine, other, "x"])) == {mine}
    assert "2 unread notices" in _bell(people.requester, [mine])[mine]
    key = f"{mine}.{first}"
    assert "1 new notice" in _newer(people.requester, [key, f"{other}.{first}"])[key]
    assert _newer(people.approver, [key]) == {}
    assert "new notice" not in _newer(people.requester, [f"{mine}.x"])[f"{mine}.x"]


def test_mails_are_chosen_on_a_page(client, people):
    client.force_login(people.requester)
    url = reverse("accounts:notice_mails")
    assert client.get(url).content.decode().count("checked") == len(notices.kinds())
    client.post(url, {"wanted": [KIND]})
    assert [name for name, wanted in notices.mail_choices(people.requester).items() if wanted] == [KIND]
    client.post(url, {})
    assert not any(notices.mail_choices(people.requester).values())
    assert client.post(url, {"wanted": "request.misspelt"}).status_code == 422
    client.force_login(people.admin)
    assert "no mail address" in client.get(url).content.decode()
