"""What the scheduler runs for machines."""

from celery import shared_task

from vms import lan, power


@shared_task(name="vms.empty_bin")
def empty_bin() -> None:
    """Delete for good what was in the bin long enough. Idempotent."""
    power.purge_what_is_due()


@shared_task(name="vms.ask_addresses")
def ask_addresses() -> None:
    """Learn the addresses of machines on LANs that were started again. Idempotent."""
    lan.ask_addresses()
