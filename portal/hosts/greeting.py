"""The steps before a host is trusted: make the portal's key, ask the host for its own. Nothing signs in."""

from django.utils import timezone

from portal.drivers import ssh
from portal.drivers.errors import CallTimeout, DriverError, NameUnknown
from portal.hosts.keys import ensure_key
from portal.hosts.models import Host
from portal.hosts.steps import ring
from portal.live.publish import publish
from portal.operations.registry import Kind, Step, StepContext, StepFailed


class MakeKey(Step):
    name, title = "key", "Make the portal's key ready"

    def do(self, context: StepContext) -> None:
        ensure_key("portal")

    def undo(self, context: StepContext) -> None:
        """Keep the key: other hosts may know it."""


class FetchHostKey(Step):
    """What the host shows is kept beside the confirmed key, never in its place."""

    name, title = "host_key", "Ask the host for its key"

    def do(self, context: StepContext) -> None:
        host = Host.objects.get(pk=context.identifiers["host"])
        address = ssh.SshAddress.of(host.uri)
        if address is None:
            raise StepFailed("not_supported", f"{host.uri} is not reached by SSH")
        try:
            key = ssh.fetch_host_key(address)
        except (NameUnknown, CallTimeout) as error:
            raise StepFailed(error.code, error.raw) from error
        except DriverError as error:
            raise StepFailed("ssh_absent", error.raw) from error
        Host.objects.filter(pk=host.pk).update(offered_host_key=key, offered_at=timezone.now())
        publish(host.topic)

    def undo(self, context: StepContext) -> None:
        """Nothing trusts what was offered."""


GREET = Kind(
    name="hosts.greet", title="Ask a host for its key", steps=(MakeKey(), FetchHostKey()), settle=ring
)
