"""Ask guests on a LAN for their address, which no host leases. Not for: machines that are being built."""

from collections.abc import Iterable

from django.db import transaction

from networks.models import Network, Port
from portal.drivers.errors import CallTimeout, DriverError, HostUnreachable
from portal.drivers.types import AddressInfo
from portal.hosts.calls import call
from portal.hosts.models import Health
from vms.models import Observed, Status, VirtualMachine
from vms.observer import MachineObserver

#: Guests asked in one round of one host; each may take its time, and the next round asks the rest.
MOST = 20
PATIENCE = 5.0  # seconds a guest gets


def ask_addresses() -> int:
    """Ask each running guest on a LAN whose address nobody knows; return how many told one. Idempotent.

    The watcher cannot: it makes no call that waits for a guest. A host that does not answer is left for
    the next round at its first silence.
    """
    lan = Port.objects.filter(network__kind=Network.Kind.BRIDGE).values("domain_uuid")
    waiting = VirtualMachine.objects.filter(
        uuid__in=lan,
        status=Status.ACTIVE,
        observed_state=Observed.RUNNING,
        observed_address=None,
        host__observed_health=Health.UP,
    )
    by_host: dict[int, list[str]] = {}
    # Those asked longest ago would be fairest; nobody notes that, so chance decides.
    for host, uuid in waiting.order_by("?").values_list("host", "uuid"):
        by_host.setdefault(host, []).append(str(uuid))
    return sum(_ask_host(host, uuids[:MOST]) for host, uuids in by_host.items())


def _ask_host(host: int, uuids: Iterable[str]) -> int:
    told: dict[str, tuple[AddressInfo, ...]] = {}
    for uuid in uuids:
        try:
            told[uuid] = call(host, "addresses", uuid, timeout=PATIENCE)
        except (CallTimeout, HostUnreachable):
            break
        except DriverError:
            continue  # it went meanwhile
    told = {uuid: found for uuid, found in told.items() if found}
    if told:
        with transaction.atomic():
            MachineObserver().addresses(host, told)
    return len(told)
