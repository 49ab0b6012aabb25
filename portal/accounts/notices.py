"""Notices: tell people what concerns them, in the portal and by mail. Not for: sending, which `outbox` does.

Rooms above register the kinds that they tell of; people choose by kind which mails they want.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import models, transaction
from django.utils import timezone

from portal.accounts.models import MailChoice, Notice, User
from portal.core.queue import send
from portal.live.publish import publish

MAIL = "accounts.mail_notices"
#: What was read is kept so long, and everything else so long.
KEEP_READ, KEEP = timedelta(days=90), timedelta(days=365)
#: Characters of a detail that are kept; the page that the link leads to has all of it.
LONGEST = 2000
_LINE = Notice._meta.get_field("text").max_length or 200
#: What may not stand in one line, a header of a mail least of all: controls, and signs that turn text round.
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")


@dataclass(frozen=True)
class Kind:
    """A kind of notice; `label` completes the sentence 'Send me a mail when …'."""

    name: str
    label: Any
    mail: bool = True


_kinds: dict[str, Kind] = {}


def register(kind: Kind) -> None:
    """Make `kind` known. Raises ValueError for a name that is taken."""
    if kind.name in _kinds:
        raise ValueError(f"the kind of notice {kind.name} is registered already")
    _kinds[kind.name] = kind


def kinds() -> Sequence[Kind]:
    """Return every kind in the order of registration."""
    return tuple(_kinds.values())


def topic(person: Any) -> str:
    """Return the topic of the bell of `person`, who may be given by their key."""
    return f"accounts.notices:{getattr(person, 'pk', person)}"


def one_line(text: str, longest: int = _LINE) -> str:
    """Return `text` as one line of at most `longest` characters, without controls."""
    line = " ".join(_CONTROLS.sub(" ", text).split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


@transaction.atomic
def notify(
    *,
    people: Iterable[User],
    kind: str,
    text: str,
    detail: str = "",
    link: str = "",
    about: str = "",
    by: Any = None,
) -> int:
    """Tell each of `people` once, but for who did it (`by`) and who may not sign in; return how many.

    Joins the caller's transaction: what is rolled back told nobody. Who wants a mail of this kind gets one
    after the commit. `link` is a path. Raises KeyError for a kind that nobody registered.
    """
    told = {person.pk: person for person in people if person.is_active and person != by}
    wanted = _mail_wanted(_kinds[kind], told)
    line, now = one_line(text), timezone.now()
    Notice.objects.bulk_create(
        Notice(
            person=person,
            kind=kind,
            text=line,
            detail=detail.replace("\x00", "").strip()[:LONGEST],
            link=link,
            about=about,
            mail=Notice.Mail.DUE if wanted[key] else Notice.Mail.NONE,
            mail_at=now if wanted[key] else None,
        )
        for key, person in sorted(told.items())
    )
    publish(*map(topic, told))
    if any(wanted.values()):
        transaction.on_commit(lambda: send(MAIL), robust=True)
    return len(told)


def _mail_wanted(kind: Kind, told: Mapping[int, User]) -> dict[int, bool]:
    """Return for the key of each person whether they have an address and want mails of `kind`."""
    chosen = dict(
        MailChoice.objects.filter(person__in=list(told), kind=kind.name).values_list("person", "wanted")
    )
    return {key: bool(person.email) and chosen.get(key, kind.mail) for key, person in told.items()}


@transaction.atomic
def take_back(*, kind: str, about: str, person: Any = None) -> None:
    """Mark notices of `kind` about something read, and send no mail any more: it is settled. Idempotent.

    For everybody, or for `person` alone.
    """
    found = Notice.objects.filter(kind=kind, about=about, read_at=None)
    found = found.filter(person=person.pk) if person else found
    people = set(found.values_list("person", flat=True))
    found.filter(mail=Notice.Mail.DUE).update(mail=Notice.Mail.NONE, mail_at=None)
    found.update(read_at=timezone.now())
    publish(*map(topic, people))


def forget() -> int:
    """Delete notices that are too old for anybody to look for; return how many. Idempotent."""
    now = timezone.now()
    old = models.Q(created_at__lt=now - KEEP_READ, read_at__isnull=False)
    deleted, _rows = Notice.objects.filter(old | models.Q(created_at__lt=now - KEEP)).delete()
    return deleted


# What a person does with their own


def of(person: Any) -> models.QuerySet[Notice]:
    """Return the notices of `person`, the newest first. Nobody sees another's."""
    return Notice.objects.filter(person=person.pk).order_by("-pk")


def unread(person: Any) -> int:
    """Return how many notices `person` has not read; 0 for who is signed out. One query."""
    return of(person).filter(read_at=None).count() if getattr(person, "pk", None) else 0


def mark_read(*, actor: Any, notice: Notice | None = None, up_to: int | None = None) -> int:
    """Mark the actor's own `notice` read, or all with a key of at most `up_to`. Idempotent.

    What came after the page was made stays unread. Returns how many were unread. What somebody has read
    is nothing that the trail holds.
    """
    chosen = of(actor).filter(read_at=None)
    chosen = chosen.filter(pk=notice.pk) if notice else chosen.filter(pk__lte=up_to or 0)
    with transaction.atomic():
        marked = chosen.update(read_at=timezone.now())
        publish(topic(actor))
    return marked


def mail_choices(person: Any) -> dict[str, bool]:
    """Return for each kind whether `person` wants mails of it."""
    chosen = dict(MailChoice.objects.filter(person=person.pk).values_list("kind", "wanted"))
    return {kind.name: chosen.get(kind.name, kind.mail) for kind in kinds()}


@transaction.atomic
def choose_mails(*, actor: User, wanted: Iterable[str]) -> None:
    """Send `actor` mails of the kinds in `wanted` and of no other. Idempotent; a taste, so not in the trail.

    Raises KeyError for a kind that nobody registered.
    """
    chosen = {_kinds[name].name for name in wanted}
    for kind in kinds():
        MailChoice.objects.update_or_create(
            person=actor, kind=kind.name, defaults={"wanted": kind.name in chosen}
        )
