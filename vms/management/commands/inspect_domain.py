"""`manage.py inspect_domain FILE.xml`: what of a definition the portal understands, and what it keeps."""

from portal.drivers.inspection import Kind
from portal.hosts.inspecting import InspectCommand


class Command(InspectCommand):
    help = "Print as JSON what of the definition of a machine (domain) is understood, and what is kept."
    kind = Kind.DOMAIN
