"""Make a new portal usable: first accounts, the first project, images, a network and a catalogue."""

import os
import secrets
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from networks.models import Network
from portal.accounts.models import Membership, Project, Role, User
from portal.audit import services as audit
from portal.audit.models import AuditEntry
from portal.drivers.types import Accelerator
from portal.hosts import services as hosts
from portal.hosts.keys import ensure_key
from portal.hosts.models import Host, Image
from portal.hosts.removal import was_removed
from portal.operations.models import Counter, DefaultLimit
from portal.operations.policies import services as policies
from portal.operations.policies.rules import Rule
from portal.operations.quotas import set_quota
from portal.operations.scopes import EVERY_PROJECT
from vms.catalogue.values import item_snapshot
from vms.models import CatalogueItem, Flavour
from vms.virtualization import Wanted

MIB, GIB = 1 << 20, 1 << 30
ACTOR = "set-up"
FLAVOURS = (
    # name, vCPUs, memory, disk, cost a month
    ("Tiny", 1, 256 * MIB, 1 * GIB, "1.00"),
    ("Small", 2, 1 * GIB, 10 * GIB, "5.00"),
    ("Medium", 2, 2 * GIB, 20 * GIB, "10.00"),
    ("Large", 4, 4 * GIB, 40 * GIB, "20.00"),
)
ICONS = {"debian-12": "brand-debian", "tiny": "bolt"}
QUOTA: dict[str, int | None] = {
    Counter.Resource.VCPU: 20,
    Counter.Resource.MEMORY: 20 * GIB,
    Counter.Resource.DISK: 200 * GIB,
    Counter.Resource.MACHINES: 10,
}
#: Made with the first accounts and never again: an admin may delete it.
EVERY_REQUEST = Rule(
    name="Every request",
    description="One approver of the project decides. What nobody decided on for 30 days expires.",
    expires_days=30,
)
#: The same network for every portal on a host: one that is installed anew finds it.
NAT = {
    "name": "nat",
    "title": "Behind this host (NAT)",
    "uuid": "5d8a6c1e-2b0f-4f6e-9a37-6a3c2e7f10b4",
    "bridge": "gatehouse0",
    "address": "192.168.140.1",
    "dhcp_start": "192.168.140.10",
    "dhcp_end": "192.168.140.250",
}
OWN = {
    "name": "own",
    "title": "By itself (user mode)",
    "uuid": "b7c1f0a9-8c1d-4f57-9a0e-3f0b6f6a2d35",
    "kind": Network.Kind.USER,
}


class Command(BaseCommand):
    """Idempotent: what exists is left as it is."""

    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--images", type=Path, help="the image builder's images.json")
        parser.add_argument("--host", nargs=3, metavar=("NAME", "URI", "POOL"), help="a host to enrol")

    def handle(self, *args: Any, **options: Any) -> None:
        new = not User.objects.exists()
        self._accounts(Path(settings.STATE_DIR) / "credentials")
        admin = self._admin()
        if new:
            policies.add_policy(actor=admin, rule=EVERY_REQUEST)
        # What a project gets until somebody says otherwise; once, for an admin may take it away.
        if admin and not DefaultLimit.objects.filter(scope=EVERY_PROJECT).exists():
            set_quota(actor=admin, scope=EVERY_PROJECT, limits=QUOTA)
        if options["images"]:
            hosts.import_images(actor=ACTOR, manifest=options["images"])
        self._catalogue()
        ensure_key(ACTOR)
        if admin and options["host"]:
            self._host(admin, *options["host"])
        self._networks()
        self._tell_what_lacks()

    def _admin(self) -> User | None:
        """Return who has been an admin of every project for longest; None, and say so, if nobody is.

        The first account need not be one for ever: people hand over to accounts of their own and lock it.
        """
        everywhere = Membership.objects.filter(role=Role.ADMIN, project=None, user__is_active=True)
        found = everywhere.select_related("user").order_by("pk").first()
        if found is not None:
            return found.user
        self.stdout.write(
            "No active account is an admin of every project. The portal starts, but nobody can administer "
            "it, and this start sets no limits and enrols no host."
        )
        return None

    def _tell_what_lacks(self) -> None:
        """Say once a run where machines will be slow: the proof decided that, not a file's presence."""
        for host in Host.objects.filter(accelerator=Accelerator.EMULATION).order_by("name"):
            self.stdout.write(
                f"KVM does not work on {host.name}: machines there are emulated, which is slow. "
                "The host's page says how to mend it."
            )

    def _accounts(self, path: Path) -> None:
        """Make one account a role with a random password, told in `path` alone (mode 600)."""
        if User.objects.exists():
            return
        lines = []
        with transaction.atomic():
            project = Project.objects.create(name="First project")
            audit.record(actor=ACTOR, verb="project.created", target=project)
            for role in Role.values:
                password = secrets.token_urlsafe(12)
                user = User.objects.create_user(role, password=password)
                where = project if role == Role.REQUESTER else None
                Membership.objects.create(user=user, role=role, project=where)
                audit.record(actor=ACTOR, verb="person.created", target=user, after={"role": role})
                lines.append(f"{role}:{password}\n")
            # Inside the transaction: accounts whose passwords nobody was told would be of no use.
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as handle:
                handle.writelines(lines)

    def _catalogue(self) -> None:
        """Offer samples once: an admin who deleted them does not want them back. Sizes that exist stay."""
        # The trail remembers what the table does not: items that somebody deleted.
        made = AuditEntry.objects.filter(verb="catalogue.added").exists() or CatalogueItem.objects.exists()
        if made or not Image.objects.exists():
            return
        with transaction.atomic():
            for name, vcpus, memory, disk, cost in FLAVOURS:
                values = {"vcpus": vcpus, "memory": memory, "disk": disk, "cost_month": cost}
                Flavour.objects.get_or_create(name=name, defaults=values)
            for position, image in enumerate(Image.objects.filter(deprecated_at=None).exclude(source=""), 1):
                item = CatalogueItem.objects.create(
                    name=image.title,
                    description=image.description,
                    icon=ICONS.get(image.name, "server"),
                    image=image,
                    device_models=image.device_models,
                    accelerators=Wanted.values,
                    position=position,
                )
                fitting = Flavour.objects.filter(memory__gte=image.min_memory, disk__gte=image.least_disk)
                item.flavours.set(fitting)
                audit.record(actor=ACTOR, verb="catalogue.added", target=item, after=item_snapshot(item))

    def _networks(self) -> None:
        """Offer a network on every item, unless one is offered that the hosts give."""
        proven = Host.objects.exclude(accelerator="")
        bridged = not proven.exists() or proven.filter(bridges=True).exists()
        offered = Network.objects.filter(items__isnull=False)
        if not bridged:
            offered = offered.filter(kind=Network.Kind.USER)
        if offered.exists() or not CatalogueItem.objects.exists():
            return
        with transaction.atomic():
            values: dict[str, Any] = NAT if bridged else OWN
            network, created = Network.objects.get_or_create(uuid=values["uuid"], defaults=values)
            if created:
                audit.record(actor=ACTOR, verb="network.added", target=network)
            for item in CatalogueItem.objects.all():
                item.networks.add(network)
        if not bridged:
            self.stdout.write("No host makes bridges: each machine gets a network of its own (user mode).")

    def _host(self, admin: User, name: str, uri: str, pool: str) -> None:
        """Enrol the host unless all is done. A host that will not have it does not stop the portal.

        `admin` is who it is done for and who is told; the trail says that set-up did it.
        """
        host = Host.objects.filter(uri=uri).first()
        if host is None and was_removed(uri):
            self.stdout.write(f"{uri} was removed from the portal; add it in the browser to have it again.")
            return
        if host is not None and host.accelerator and not self._lacks_images(host):
            return
        name = name if host is None else host.name
        try:
            call_command(
                "enrol", name, uri, pool=pool, username=admin.username, begun_by=ACTOR, stdout=self.stdout
            )
        except CommandError as error:
            self.stdout.write(str(error))

    @staticmethod
    def _lacks_images(host: Host) -> bool:
        """Tell whether an image that can be copied there is not; one that was built anew since cannot."""
        copied = Image.objects.exclude(source="").filter(deprecated_at=None)
        return bool(copied.exclude(attachments__pool__host=host).exists())
