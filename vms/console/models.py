"""Tickets to consoles, and which consoles are or were open. Not for: what passes through them."""

from django.conf import settings
from django.db import models

from portal.core.querysets import RestrictedQuerySet


class Kind(models.TextChoices):
    """Which console of a machine."""

    SERIAL = "serial", "Serial line"
    VNC = "vnc", "Screen"


class ConsoleTicket(models.Model):
    """The right to open one console once, soon. Only the SHA-256 of its secret is kept."""

    secret_hash = models.CharField(max_length=64, unique=True)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    machine = models.ForeignKey("vms.VirtualMachine", on_delete=models.CASCADE, related_name="+")
    kind = models.CharField(max_length=6, choices=Kind.choices)
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True)

    class Meta:
        app_label = "vms"

    def __str__(self) -> str:
        return f"{self.kind} of {self.machine} for {self.user}"


class ConsoleSession(models.Model):
    """A console that somebody opened; open while `closed_at` is empty. Bytes count from the guest's side."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    machine = models.ForeignKey("vms.VirtualMachine", on_delete=models.CASCADE, related_name="consoles")
    kind = models.CharField(max_length=6, choices=Kind.choices)
    #: Which broker holds it, so that a broker that starts again settles what it left, and nobody else's.
    broker = models.CharField(max_length=255)
    opened_at = models.DateTimeField(auto_now_add=True)
    closed_at = models.DateTimeField(null=True)
    reason = models.CharField(max_length=20, blank=True)
    bytes_typed = models.PositiveBigIntegerField(default=0)
    bytes_shown = models.PositiveBigIntegerField(default=0)

    objects = RestrictedQuerySet.as_manager()
    #: Who may see the machine's project may see its consoles.
    project_field = "machine__project"

    class Meta:
        app_label = "vms"
        ordering = ["-opened_at"]
        indexes = [models.Index(fields=["broker", "closed_at"])]

    def __str__(self) -> str:
        return f"{self.kind} of {self.machine} by {self.user}"
