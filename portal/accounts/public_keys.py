"""The SSH public keys that a person keeps here. Not for: what a key is (`portal.core.public_keys`)."""

from collections.abc import Iterable
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.utils.translation import gettext as _

from portal.accounts.models import SshPublicKey
from portal.audit import services as audit
from portal.core import public_keys
from portal.core.errors import Denied

#: How many a person may keep; a form shows them all.
MOST = 20


def of(person: Any) -> QuerySet[SshPublicKey]:
    """Return the keys of `person` alone, by name."""
    return SshPublicKey.objects.filter(person=person.pk).order_by("name", "pk")


@transaction.atomic
def add(*, actor: Any, name: str, line: str) -> SshPublicKey:
    """Keep a public key of the actor's own. Raises Denied for what is none, and for one that is there."""
    try:
        key = public_keys.read(line)
    except public_keys.BadKey as error:
        raise Denied(str(error), field="line") from error
    mine = of(actor)
    if there := mine.filter(fingerprint=key.fingerprint).first():
        called = _("You have this key already; it is called %(name)s.") % {"name": there.name}
        raise Denied(called, field="line")
    name = name.strip() or key.comment or key.kind
    if not name.isprintable():
        raise Denied(_("A name has only characters that can be seen."), field="name")
    if mine.count() >= MOST:
        raise Denied(_("You have %(most)d keys, which is as many as fit. Remove one first.") % {"most": MOST})
    try:
        with transaction.atomic():
            made = SshPublicKey.objects.create(
                person=actor, name=name[:64], line=key.line, fingerprint=key.fingerprint
            )
    except IntegrityError as error:
        raise Denied(_("You have this key already."), field="line") from error
    audit.record(
        actor=actor,
        verb="public_key.add",
        target=actor,
        after={"name": made.name, "fingerprint": made.fingerprint},
    )
    return made


@transaction.atomic
def remove(*, actor: Any, key: SshPublicKey) -> None:
    """Forget one of the actor's own keys; machines that have it keep it. Idempotent. Raises Denied."""
    if key.person_id != actor.pk:
        raise Denied(_("This key is somebody else's."))
    deleted, _rows = SshPublicKey.objects.filter(pk=key.pk).delete()
    if deleted:
        before = {"name": key.name, "fingerprint": key.fingerprint}
        audit.record(actor=actor, verb="public_key.remove", target=actor, before=before)


def remember(person: Any, chosen: Iterable[SshPublicKey]) -> None:
    """Keep which keys `person` chose, for the next form. Joins the transaction; no change worth a trail."""
    picked = [key.pk for key in chosen]
    of(person).filter(pk__in=picked, chosen=False).update(chosen=True)
    of(person).filter(chosen=True).exclude(pk__in=picked).update(chosen=False)
