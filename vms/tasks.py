"""What the scheduler runs for machines."""

from celery import shared_task

from vms import power


@shared_task(name="vms.empty_bin")
def empty_bin() -> None:
    """Delete for good what was in the bin long enough. Idempotent."""
    power.purge_what_is_due()
