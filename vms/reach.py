"""How people come to a machine by ssh. Not for: consoles, which need no network at all."""

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.utils.translation import gettext as _

from networks.models import Network, Port
from portal.hosts.models import Host
from vms.models import Status, VirtualMachine
from vms.observer import OFF

PATIENCE = 2.0  # seconds for a guest's SSH to say its first word


@dataclass(frozen=True)
class Way:
    """From where, and the command that leads to the machine."""

    whence: str
    command: str


def speaks_ssh(port: int) -> bool:
    """Say whether an SSH server answers behind `port` of this machine's loopback.

    A connection proves nothing: the emulator takes it also when nobody listens in the guest.
    """
    try:
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as link:
            link.settimeout(PATIENCE)
            return link.recv(4) == b"SSH-"
    except OSError:
        return False


def jump_of(host: Host) -> str:
    """Return where people come to by ssh before they jump from `host`, '' when nobody said and it is here."""
    if host.jump:
        return host.jump
    name = urlsplit(host.uri if not host.is_local else settings.PUBLIC_URL).hostname or ""
    return "" if _is_loopback(name) else name


def _is_loopback(name: str) -> bool:
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return name in {"", "localhost"}


def ways(machine: VirtualMachine, ports: Sequence[Port]) -> list[Way]:
    """Return the ways to a machine that is on, by its cards; none before it has an address."""
    if machine.status != Status.ACTIVE or machine.observed_state in OFF:
        return []
    found: list[Way] = []
    # Of a machine that was adopted nobody said who signs in.
    user = f"{machine.login_user}@" if machine.login_user else ""
    for port in ports:
        if port.network.kind == Network.Kind.USER:
            found += _by_host(machine.host, f"-p {port.ssh_port} {user}127.0.0.1")
        elif port.observed_address:
            target = f"{user}{port.observed_address}"
            if port.network.kind == Network.Kind.BRIDGE:
                found.append(Way(_("From the LAN"), f"ssh {target}"))
            else:
                found += _by_host(machine.host, target)
    return found


def _by_host(host: Host, target: str) -> list[Way]:
    near = Way(_("On %(host)s itself") % {"host": host.name}, f"ssh {target}")
    jump = jump_of(host)
    return [Way(_("From your computer"), f"ssh -J {jump} {target}"), near] if jump else [near]


def ports_of(machines: Sequence[VirtualMachine]) -> Mapping[Any, list[Port]]:
    """Return the cards of machines with their networks, by the machine's UUID; one query."""
    found: dict[Any, list[Port]] = {machine.uuid: [] for machine in machines}
    for port in Port.objects.filter(domain_uuid__in=list(found)).select_related("network").order_by("pk"):
        found[port.domain_uuid].append(port)
    return found
