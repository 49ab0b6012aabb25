"""What the page shows while a host joins: its address, its key, its enrolment. Not for: doing any of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import Max, QuerySet
from django.template.loader import render_to_string
from django.utils.translation import gettext as _

from portal.drivers.ssh import SshAddress
from portal.hosts.keys import authorized_line, current_key
from portal.hosts.models import Host
from portal.live.panels import Panel, register, row_keys
from portal.operations.live import progress
from portal.operations.models import Operation
from portal.operations.states import FINAL, State


@dataclass(frozen=True)
class Stage:
    """One stage of the way; `tone` of its mark."""

    title: str
    word: str
    tone: str


@dataclass(frozen=True)
class Joining:
    """How far a host is on its way."""

    host: Host
    address: SshAddress | None
    stages: Sequence[Stage]
    #: The line for the host's authorized_keys, '' before the portal has a key.
    line: str
    operation: Operation | None
    progress: Any

    @property
    def key_kind(self) -> str:
        """The kind of the offered key, as ssh names it."""
        return self.host.offered_host_key.split(" ")[0]

    @property
    def key_file(self) -> str:
        """What the host's own file of that key is called after."""
        return {"ssh-ed25519": "ed25519", "ssh-rsa": "rsa"}.get(self.key_kind, "ecdsa")

    @property
    def at_rest(self) -> bool:
        """Tell whether nothing is being done now."""
        return self.operation is None or self.operation.state in FINAL

    @property
    def failed(self) -> bool:
        """Tell whether the last thing done failed."""
        return self.operation is not None and self.at_rest and self.operation.state != State.SUCCEEDED

    @property
    def ready(self) -> bool:
        """Tell whether machines can be built there."""
        return self.at_rest and not self.failed and bool(self.host.accelerator) and not self.to_confirm

    @property
    def to_confirm(self) -> bool:
        """Tell whether a host key waits for somebody's word."""
        return self.at_rest and bool(self.host.offered_fingerprint)


def visible(user: Any) -> QuerySet[Any]:
    """Return the hosts whose joining `user` may follow."""
    return Host.objects.restrict(user, "administer")


def joinings(hosts: Sequence[Host]) -> list[Joining]:
    """Return how far each of `hosts` is, with a constant number of queries."""
    of_them = Operation.objects.filter(subject__in=[host.topic for host in hosts])
    newest = of_them.order_by("subject").values("subject").annotate(newest=Max("pk")).values("newest")
    operations = Operation.objects.filter(pk__in=newest).prefetch_related("steps")
    by_subject = {operation.subject: operation for operation in operations}
    key = current_key()
    line = authorized_line(key) if key else ""
    return [_joining(host, by_subject.get(host.topic), line) for host in hosts]


def _joining(host: Host, operation: Operation | None, line: str) -> Joining:
    return Joining(
        host=host,
        address=SshAddress.of(host.uri),
        stages=_stages(host, operation),
        line=line,
        operation=operation,
        progress=progress(operation) if operation else None,
    )


def _stages(host: Host, operation: Operation | None) -> list[Stage]:
    enrolled = bool(host.accelerator) and (operation is None or operation.state == State.SUCCEEDED)
    stages = [(_("Address"), True)]
    if host.by_ssh:
        stages.append((_("Host key"), bool(host.host_key) and not host.offered_fingerprint))
    stages.append((_("Enrolment"), enrolled))
    failed = operation is not None and operation.state in FINAL and operation.state != State.SUCCEEDED
    present = (_("Failed"), "bad") if failed else (_("Now"), "busy")
    found, now = [], True
    for title, done in stages:
        if done:
            found.append(Stage(title, _("Done"), "good"))
        else:
            found.append(Stage(title, *(present if now else (_("Later"), "unknown"))))
            now = False
    return found


def _render(user: Any, ids: Sequence[str]) -> dict[str, str]:
    found = joinings(list(visible(user).filter(pk__in=row_keys(ids))))
    return {
        str(shown.host.pk): render_to_string("hosts/joining.html", {"joining": shown}) for shown in found
    }


def register_panels() -> None:
    """Make the panel known to the live socket."""
    register(Panel("hosts.join", _render, lambda identity: [f"hosts.host:{identity}"]))
