"""Mails of notices: on Django's outbox, and by a real mail server that goes away and comes back."""

import email
import email.policy
import uuid
from datetime import timedelta

import pytest
from django.core import mail
from django.core.cache import cache
from django.utils import timezone

from portal.accounts import notices, outbox, tasks
from portal.accounts.models import Notice
from tests.accounts.smtp import Server
from tests.racing import race

pytestmark = pytest.mark.database
KIND = "request.decided"


@pytest.fixture(autouse=True)
def no_memory():
    cache.clear()
    yield
    cache.clear()


@pytest.fixture
def reader(cast):
    cast.requester.email = "reader@example.org"
    cast.requester.save()
    return cast.requester


@pytest.fixture
def server(settings):
    """A mail server; `settings` point to it also after it went away."""
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    made = Server()
    settings.EMAIL_HOST, settings.EMAIL_PORT, settings.EMAIL_TIMEOUT = "127.0.0.1", made.port, 2
    yield made
    made.stop()


def tell(*people, **more):
    values = {"kind": KIND, "text": "bob approved: Create example", "link": "/requests/7/"}
    notices.notify(people=people, **values | more)


def states():
    return list(Notice.objects.order_by("pk").values_list("mail", flat=True))


def later():
    """Let the pauses pass."""
    cache.delete(outbox.AWAY)
    Notice.objects.filter(mail="due").update(mail_at=timezone.now())


def parsed(data):
    return email.message_from_bytes(data, policy=email.policy.default)


@pytest.mark.django_db
def test_a_mail_says_what_happened_and_links_to_it(reader, settings):
    """Red when the link is not made absolute by PUBLIC_URL."""
    settings.PUBLIC_URL = "https://portal.example.org"
    tell(reader, detail="It fits & <is> fine.")
    tasks.mail_notices()
    sent = mail.outbox[0]
    assert sent.to == ["reader@example.org"]
    assert sent.subject == "[Gatehouse] bob approved: Create example"
    assert "https://portal.example.org/requests/7/" in sent.body
    assert "It fits & <is> fine." in sent.body
    assert "https://portal.example.org/accounts/notices/mails/" in sent.body
    assert sent.message()["Message-ID"] == f"<notice-{Notice.objects.get().pk}@portal.example.org>"
    assert states() == ["sent"]
    tasks.mail_notices()
    assert len(mail.outbox) == 1


@pytest.mark.django_db
@pytest.mark.parametrize("change", ["address", "active", "choice"])
def test_who_wants_no_mail_any_more_gets_none(reader, change):
    """Red when _send() does not look at the person again."""
    tell(reader)
    if change == "choice":
        notices.choose_mails(actor=reader, wanted=[])
    else:
        setattr(reader, "email" if change == "address" else "is_active", "")
        reader.is_active = bool(reader.is_active)
        reader.save()
    assert outbox.send_due() == 0
    assert not mail.outbox and states() == ["none"]


@pytest.mark.django_db
def test_a_value_in_the_subject_makes_no_header(reader, server):
    """Red when one_line() keeps line ends (the row too: an older one may hold them)."""
    tell(reader)
    Notice.objects.update(text="x\r\nBcc: all@example.org\r\n\r\nbody")
    assert outbox.send_due() == 1
    sent = parsed(server.mails[0][1])
    assert sent["Bcc"] is None and "Bcc: all@example.org body" in sent["Subject"]
    assert [recipient for recipient, _data in server.mails] == ["reader@example.org"]


@pytest.mark.django_db
def test_a_server_that_is_away_loses_nothing_and_nothing_comes_twice(reader, server, cast):
    """Red when _again() does not put the mail back, or send_due() forgets what it had not claimed."""
    cast.approver.email = "other@example.org"
    cast.approver.save()
    tell(reader, cast.approver)
    port = server.port
    server.stop()
    assert outbox.send_due() == 0
    assert states() == ["due", "due"]
    # While it is known to be away nobody waits for it.
    assert cache.get(outbox.AWAY)
    back = Server(port)
    assert outbox.send_due() == 0
    later()
    assert outbox.send_due() == 2
    later()
    assert outbox.send_due() == 0
    back.stop()
    assert sorted(recipient for recipient, _data in back.mails) == ["other@example.org", "reader@example.org"]
    assert states() == ["sent", "sent"]
    server._server.server_close()


@pytest.mark.django_db
def test_a_connection_that_breaks_in_the_middle_puts_the_mail_back(reader, server):
    server.refuse["data:reader@example.org"] = "drop"
    tell(reader)
    assert outbox.send_due() == 0
    notice = Notice.objects.get()
    assert notice.mail == "due" and notice.mail_tries == 1 and notice.mail_at > timezone.now()
    server.refuse.clear()
    later()
    assert outbox.send_due() == 1 and len(server.mails) == 1


@pytest.mark.django_db
@pytest.mark.parametrize("where", ["reader@example.org", "data:reader@example.org"])
def test_what_the_server_refuses_for_good_is_given_up_with_its_reason_and_holds_up_nobody(
    reader, server, cast, where
):
    """Red when a 5xx for one address ends the run for all."""
    cast.approver.email = "other@example.org"
    cast.approver.save()
    server.refuse[where] = "550 no such person"
    tell(reader)
    tell(cast.approver)
    assert outbox.send_due() == 1
    assert states() == ["failed", "sent"]
    assert "no such person" in Notice.objects.first().mail_error


@pytest.mark.django_db
@pytest.mark.parametrize("where", ["reader@example.org", "data:reader@example.org"])
def test_what_the_server_refuses_for_now_is_tried_later_and_not_for_ever(reader, server, where):
    """Red when _again() never gives up, or gives up at once."""
    server.refuse[where] = "450 try later"
    tell(reader)
    pauses = []
    for _ in range(3):
        outbox.send_due()
        pauses.append(Notice.objects.get().mail_at - timezone.now())
        later()
    assert states() == ["due"] and pauses == sorted(pauses) and pauses[2] > timedelta(seconds=100)
    Notice.objects.update(created_at=timezone.now() - outbox.GIVE_UP_AFTER - timedelta(hours=1))
    outbox.send_due()
    assert states() == ["failed"]


@pytest.mark.django_db
def test_a_server_that_greets_with_an_error_counts_as_away(reader, server):
    server.greeting = "554 not today"
    tell(reader)
    assert outbox.send_due() == 0
    assert states() == ["due"] and cache.get(outbox.AWAY)


@pytest.mark.django_db
def test_an_address_that_no_mail_can_be_written_to_is_given_up(reader, cast):
    """Red when _send() lets the error out: then nobody behind it in the row gets a mail."""
    cast.approver.email = "other@example.org"
    cast.approver.save()
    tell(reader)
    type(reader).objects.filter(pk=reader.pk).update(email="a\nb@example.org")
    tell(cast.approver)
    assert outbox.send_due() == 1
    assert states() == ["failed", "sent"]


@pytest.mark.django_db
def test_what_a_dead_worker_had_claimed_is_sent_when_its_claim_lapses(reader):
    """Red when send_due() leaves what is `sending` alone for ever."""
    tell(reader)
    Notice.objects.update(mail="sending", mail_at=timezone.now(), mail_tries=1)
    assert outbox.send_due() == 0
    Notice.objects.update(mail_at=timezone.now() - outbox.CLAIM_LAPSE - timedelta(seconds=1))
    assert outbox.send_due() == 1


@pytest.mark.usefixtures("trail_that_can_be_flushed")
def test_racing_workers_send_each_mail_once(reader, server):
    """Red when _claim() takes a row without asking again whether it is due."""
    for number in range(20):
        tell(reader, text=f"number {number} {uuid.uuid4()}")
    race([outbox.send_due] * 6)
    subjects = [parsed(data)["Subject"] for _recipient, data in server.mails]
    assert len(subjects) == len(set(subjects)) == 20
    assert set(states()) == {"sent"}
