"""Network calls; not for XML or firewall rules."""

import libvirt

from portal.drivers.errors import NetworkNotFound
from portal.drivers.libvirt.errors import translated
from portal.drivers.libvirt.lookup import find_same
from portal.drivers.libvirt.xml.network import NetworkElement
from portal.drivers.types import NetworkInfo, NetworkSpec
from portal.drivers.validation import check_name, check_network


def _info(network: libvirt.virNetwork) -> NetworkInfo:
    spec = NetworkElement.from_xml(network.XMLDesc())
    return NetworkInfo(spec.name, spec.uuid, spec.bridge, bool(network.isActive()))


class Networks:
    """The networks of one connection; the contract is in `portal.drivers.base`."""

    def __init__(self, connection: libvirt.virConnect) -> None:
        self._connection = connection

    @translated()
    def ensure(self, spec: NetworkSpec) -> NetworkInfo:
        """Define a network unless it exists, and start it."""
        check_network(spec)
        network = find_same(self._connection.listAllNetworks(), spec.name, spec.uuid, "network")
        if network is None:
            network = self._connection.networkDefineXML(NetworkElement.to_xml(spec))
        if not network.isActive():
            network.create()
        network.setAutostart(1)
        return _info(network)

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
