"""What the scheduler runs for the trail."""

from celery import shared_task
from django.db import IntegrityError

from portal.audit import services


@shared_task(name="audit.seal")
def seal() -> None:
    """Append seals for what was committed. Idempotent."""
    try:
        services.seal_pending()
    except IntegrityError:
        # Another sealer was faster with the same head; the entries are sealed now or a second later.
        return
