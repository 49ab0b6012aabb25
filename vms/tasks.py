"""What the scheduler runs for machines."""

from celery import shared_task

from vms import lan, leases, power
from vms.exports import services as exports


@shared_task(name="vms.empty_bin")
def empty_bin() -> None:
    """Delete for good what was in the bin long enough. Idempotent."""
    power.purge_what_is_due()


@shared_task(name="vms.keep_leases")
def keep_leases() -> None:
    """Warn of leases that end, and end them. Idempotent."""
    leases.keep()


@shared_task(name="vms.sweep_exports")
def sweep_exports() -> None:
    """Delete the files of machines whose time is over. Idempotent."""
    exports.sweep()


@shared_task(name="vms.ask_addresses")
def ask_addresses() -> None:
    """Learn the addresses of machines on LANs that were started again. Idempotent."""
    lan.ask_addresses()
