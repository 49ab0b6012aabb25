"""Send the mails of notices. Not for: deciding who gets one, which `notices.notify` did.

A row is claimed by one conditional UPDATE, so that racing workers send it once, and is marked sent after
the mail server took it. A worker that dies between the two leaves a claim that lapses; its mail may then
come twice, with the same Message-ID.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from smtplib import SMTPDataError, SMTPException, SMTPRecipientsRefused
from urllib.parse import urlsplit

from django.conf import settings
from django.core.cache import cache
from django.core.mail import EmailMessage, get_connection
from django.core.mail.backends.base import BaseEmailBackend
from django.db.models import F, Q
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone

from portal.accounts import notices
from portal.accounts.models import Notice
from portal.core.web.links import public_link

#: A claim that is older was left by a worker that died.
CLAIM_LAPSE = timedelta(minutes=5)
#: A mail that could not be sent for so long is given up; the notice in the portal stays.
GIVE_UP_AFTER = timedelta(days=3)
FIRST_PAUSE, LONGEST_PAUSE = timedelta(seconds=30), timedelta(hours=1)
BATCH = 200
#: While this stands in the cache the mail server did not answer, and nobody waits for it again.
AWAY = "accounts.mail_server_away"
AWAY_SECONDS = 20
_PERMANENT = 500
_log = logging.getLogger(__name__)


class ServerAway(Exception):
    """The mail server takes nothing from anybody now."""


def send_due() -> int:
    """Send what is due, at most BATCH mails; return how many went out. Idempotent.

    Never raises for a mail that cannot be sent: it is tried again later, or given up with its reason in
    its row and in the log.
    """
    if cache.get(AWAY):
        return 0
    now = timezone.now()
    due = Q(mail=Notice.Mail.DUE, mail_at__lte=now) | Q(
        mail=Notice.Mail.SENDING, mail_at__lte=now - CLAIM_LAPSE
    )
    waiting = list(Notice.objects.filter(due).order_by("mail_at", "pk").values_list("pk", flat=True)[:BATCH])
    if not waiting:
        return 0
    sent = 0
    try:
        with _server() as server:
            for pk in waiting:
                notice = _claim(pk, due)
                sent += bool(notice and _send(notice, server))
    except ServerAway as away:
        cache.set(AWAY, True, AWAY_SECONDS)
        _log.warning("The mail server is away, and mails wait: %s", away)
    return sent


@contextmanager
def _server() -> Iterator[BaseEmailBackend]:
    """Hold one connection for all mails of a run. Raises ServerAway."""
    server = get_connection()
    try:
        server.open()
    except (OSError, SMTPException) as error:
        raise ServerAway(str(error)) from error
    try:
        yield server
    finally:
        try:
            server.close()
        except (OSError, SMTPException) as error:
            _log.info("The mail server broke off at the end: %s", error)


def _claim(pk: int, due: Q) -> Notice | None:
    """Return the notice if its mail is this worker's to send; of racing workers one gets it."""
    won = Notice.objects.filter(due, pk=pk).update(
        mail=Notice.Mail.SENDING, mail_at=timezone.now(), mail_tries=F("mail_tries") + 1
    )
    return Notice.objects.select_related("person").get(pk=pk) if won else None


def _send(notice: Notice, server: BaseEmailBackend) -> bool:
    """Send one claimed mail; False when it did not go out. Raises ServerAway, having put it back."""
    person = notice.person
    if not person.is_active or not person.email or not notices.mail_choices(person).get(notice.kind):
        _end(notice, Notice.Mail.NONE)
        return False
    try:
        server.send_messages([_message(notice)])
    except SMTPRecipientsRefused as error:
        codes = [code for code, _text in error.recipients.values()]
        _again(notice, error, permanent=bool(codes) and min(codes) >= _PERMANENT)
        return False
    except SMTPDataError as error:
        _again(notice, error, permanent=error.smtp_code >= _PERMANENT)
        return False
    except (OSError, SMTPException) as error:
        # The connection, the sign-in or the sender was refused: no other mail would fare better.
        _again(notice, error, permanent=False)
        raise ServerAway(str(error)) from error
    except ValueError as error:
        # An address that no mail can be written to (BadHeaderError and UnicodeError are of this kind).
        _again(notice, error, permanent=True)
        return False
    _end(notice, Notice.Mail.SENT)
    return True


def _again(notice: Notice, error: Exception, *, permanent: bool) -> None:
    """Put a mail back for another try, each later than the last, or give it up."""
    reason = notices.one_line(f"{type(error).__name__}: {error}", 500)
    now = timezone.now()
    if permanent or now - notice.created_at > GIVE_UP_AFTER:
        _log.warning("The mail of notice %s is given up: %s", notice.pk, reason)
        _end(notice, Notice.Mail.FAILED, mail_error=reason)
        return
    pause = min(FIRST_PAUSE * 2 ** min(notice.mail_tries - 1, 10), LONGEST_PAUSE)
    _end(notice, Notice.Mail.DUE, mail_at=now + pause, mail_error=reason)


def _end(notice: Notice, mail: str, **changes: object) -> None:
    """End the claim, unless it lapsed and another worker has the mail."""
    mine = Notice.objects.filter(pk=notice.pk, mail=Notice.Mail.SENDING, mail_tries=notice.mail_tries)
    mine.update(**{"mail": mail, "mail_at": timezone.now(), **changes})


def _message(notice: Notice) -> EmailMessage:
    context = {
        "notice": notice,
        "address": public_link(notice.link) if notice.link else "",
        "choices": public_link(reverse("accounts:notice_mails")),
    }
    return EmailMessage(
        subject=settings.EMAIL_SUBJECT_PREFIX + notices.one_line(notice.text),
        body=render_to_string("accounts/mail/notice.txt", context),
        to=[notice.person.email],
        headers={
            # The same at every try: a mail that came twice after all can be told by it.
            "Message-ID": f"<notice-{notice.pk}@{urlsplit(settings.PUBLIC_URL).hostname}>",
            "Auto-Submitted": "auto-generated",
        },
    )
