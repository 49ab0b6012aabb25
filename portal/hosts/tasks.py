"""What the scheduler runs for hosts. Not for: watching them, which a process of its own does."""

from celery import shared_task

from portal.hosts import calls
from portal.hosts.images import services as images
from portal.hosts.models import Health, Host
from portal.hosts.storage import downloading
from portal.hosts.storage.turns import look_by_turns
from portal.operations.models import Operation
from portal.operations.services import find_lost
from portal.operations.states import State


@shared_task(name="hosts.find_lost")
def find_lost_operations() -> None:
    """Let operations go on whose host is back, and drop connections to removed hosts. Idempotent."""
    calls.close_removed()
    if Operation.objects.filter(state=State.LOST).exists():
        back = Host.objects.filter(observed_health=Health.UP)
        find_lost(lanes=[host.scope for host in back], worker="the host's return")


@shared_task(name="hosts.sweep_downloads")
def sweep_downloads() -> None:
    """Delete the files of volumes whose time is over. Idempotent."""
    downloading.sweep()


@shared_task(name="hosts.look_into_pools")
def look_into_pools() -> None:
    """Look into some pools, by turns. Idempotent."""
    look_by_turns()


@shared_task(name="hosts.sweep_uploads")
def sweep_uploads() -> None:
    """Throw away uploads that nobody goes on with. Idempotent."""
    images.sweep_uploads()
