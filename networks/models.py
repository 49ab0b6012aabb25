"""Networks and the ports of machines on them. Not for: firewall rules."""

import uuid

from django.core.exceptions import ValidationError
from django.db import models
from django.utils.translation import gettext as _

from portal.core.querysets import RestrictedQuerySet
from portal.drivers.types import NetworkSpec
from portal.hosts.models import Host


class Network(models.Model):
    """A network that a host gets when the first machine there needs it.

    A NAT or isolated network exists once on each host, with the same addresses; a bridge joins machines
    to a network that exists outside of the portal; a network of kind `user` is made by no host: each machine
    has one of its own inside its emulator, which works where nobody may make bridges.
    """

    class Kind(models.TextChoices):
        NAT = "nat", "Behind NAT"
        ISOLATED = "isolated", "Isolated"
        BRIDGE = "bridge", "On the LAN (host bridge)"
        USER = "user", "Each machine by itself (user mode)"

    name = models.SlugField(max_length=50, unique=True)
    title = models.CharField(max_length=100)
    uuid = models.UUIDField(unique=True, default=uuid.uuid4)
    kind = models.CharField(max_length=8, choices=Kind.choices, default=Kind.NAT)
    bridge = models.CharField(max_length=15, blank=True)
    address = models.GenericIPAddressField(protocol="IPv4", null=True, blank=True)
    prefix = models.PositiveSmallIntegerField(default=24)
    dhcp_start = models.GenericIPAddressField(protocol="IPv4", null=True, blank=True)
    dhcp_end = models.GenericIPAddressField(protocol="IPv4", null=True, blank=True)

    objects = RestrictedQuerySet.as_manager()
    estate = True

    class Meta:
        ordering = ["title"]

    def __str__(self) -> str:
        return self.title

    def clean(self) -> None:
        addressed = all([self.address, self.dhcp_start, self.dhcp_end])
        if self.kind in (self.Kind.NAT, self.Kind.ISOLATED) and not addressed:
            raise ValidationError(_("A network of the portal's own needs a gateway and a DHCP range."))

    @property
    def spec(self) -> NetworkSpec:
        """The network as a driver makes it on any host."""
        return NetworkSpec(
            name=f"gatehouse-{self.name}",
            uuid=str(self.uuid),
            bridge=self.bridge,
            address=self.address or "",
            prefix=self.prefix,
            dhcp_start=self.dhcp_start or "",
            dhcp_end=self.dhcp_end or "",
            nat=self.kind == self.Kind.NAT,
            host_bridge=self.kind == self.Kind.BRIDGE,
            user=self.kind == self.Kind.USER,
        )


class Port(models.Model):
    """A network card's place on a network; the MAC is fixed before the machine is built."""

    network = models.ForeignKey(Network, on_delete=models.PROTECT, related_name="ports")
    host = models.ForeignKey(Host, on_delete=models.PROTECT, related_name="ports")
    #: The domain that the port belongs to.
    domain_uuid = models.UUIDField(db_index=True)
    mac = models.CharField(max_length=17, unique=True)
    #: The network that the card is being brought to, while an operation does that.
    joining = models.ForeignKey(Network, on_delete=models.PROTECT, null=True, related_name="arriving")
    observed_address = models.GenericIPAddressField(null=True, blank=True)
    #: On a network of the machine's own: the port of the host's loopback that leads to its SSH.
    ssh_port = models.PositiveIntegerField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["host", "ssh_port"], name="one_port_a_host_and_number"),
        ]

    def __str__(self) -> str:
        return f"{self.mac} on {self.network}"
