"""`manage.py inspect_network FILE.xml`: what of a definition the portal understands, and what it keeps."""

from portal.drivers.inspection import Kind
from portal.hosts.inspecting import InspectCommand


class Command(InspectCommand):
    help = "Print as JSON what of the definition of a network is understood, and what is kept."
    kind = Kind.NETWORK
