"""Network calls; not for XML or firewall rules."""

import secrets
import time

import libvirt

from portal.drivers.errors import CallTimeout, HostUnreachable, NetworkNotFound
from portal.drivers.libvirt.errors import translate, translated
from portal.drivers.libvirt.lookup import define_once
from portal.drivers.libvirt.xml.network import NetworkElement
from portal.drivers.types import PROBE_PREFIX, NetworkInfo, NetworkSpec, Proof
from portal.drivers.validation import check_name, check_network

STALE_SECONDS = 600


def _info(network: libvirt.virNetwork) -> NetworkInfo:
    return NetworkElement.info(network.XMLDesc(), bool(network.isActive()))


class Networks:
    """The networks of one connection; the contract is in `portal.drivers.base`."""

    def __init__(self, connection: libvirt.virConnect) -> None:
        self._connection = connection

    @translated()
    def ensure(self, spec: NetworkSpec) -> NetworkInfo:
        """Define a network unless it exists, and start it."""
        check_network(spec)
        network = define_once(
            self._connection.networkLookupByUUIDString,
            self._connection.networkLookupByName,
            spec.name,
            spec.uuid,
            lambda: self._connection.networkDefineXML(NetworkElement.to_xml(spec)),
        )
        if not network.isActive():
            self._start(network)
        network.setAutostart(1)
        return _info(network)

    @staticmethod
    def _start(network: libvirt.virNetwork) -> None:
        try:
            network.create()
        except libvirt.libvirtError:
            # Someone else may have started it between the two calls.
            if not network.isActive():
                raise

    @translated()
    def prove(self) -> Proof:
        """Make a bridge without addresses for a moment."""
        self._sweep()
        token = secrets.token_hex(4)
        name = f"{PROBE_PREFIX}-{int(time.time())}-{token}"
        try:
            network = self._connection.networkCreateXML(NetworkElement.bare_xml(name, f"ghp{token}"))
        except libvirt.libvirtError as error:
            problem = translate(error)
            if isinstance(problem, HostUnreachable | CallTimeout):
                raise
            return Proof(False, f"The host refused to make a bridge: {problem.raw}")
        network.destroy()
        return Proof(True, "The host made a bridge and removed it.")

    def _sweep(self) -> None:
        for network in self._connection.listAllNetworks():
            prefix, _, rest = network.name().rpartition("-")[0].rpartition("-")
            if prefix == PROBE_PREFIX and rest.isdecimal() and int(rest) < time.time() - STALE_SECONDS:
                network.destroy()

    @translated()
    def list(self) -> tuple[NetworkInfo, ...]:
        """Return every network by name; one that vanishes meanwhile is left out."""
        found = []
        for network in self._connection.listAllNetworks():
            try:
                found.append(_info(network))
            except libvirt.libvirtError as error:
                if error.get_error_code() != libvirt.VIR_ERR_NO_NETWORK:
                    raise
        return tuple(sorted(found, key=lambda info: info.name))

    @translated()
    def _get(self, name: str) -> libvirt.virNetwork:
        return self._connection.networkLookupByName(check_name(name))

    @translated()
    def remove(self, name: str) -> None:
        """Stop and undefine a network; absent is no error."""
        try:
            network = self._get(name)
        except NetworkNotFound:
            return
        if network.isActive():
            network.destroy()
        network.undefine()
