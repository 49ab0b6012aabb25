"""What the scheduler runs for the trail."""

from datetime import timedelta

from celery import shared_task
from django.db import IntegrityError

from portal.audit import services

#: Longer than any transaction lasts: an entry that was committed later is found by `seal_all`.
RECENT = timedelta(hours=1)


@shared_task(name="audit.seal")
def seal() -> None:
    """Append seals for what was committed lately. Idempotent."""
    _seal(RECENT)


@shared_task(name="audit.seal_all")
def seal_all() -> None:
    """Append seals for whatever has none, such as what waited while no scheduler ran. Idempotent."""
    _seal(None)


def _seal(within: timedelta | None) -> None:
    try:
        services.seal_pending(within=within)
    except IntegrityError:
        # Another sealer was faster with the same head; the entries are sealed now or a second later.
        return
