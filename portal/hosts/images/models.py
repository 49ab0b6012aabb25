"""Networks that images may be fetched from though they are not public. Not for: those of the environment."""

from django.conf import settings
from django.db import models

from portal.core.querysets import RestrictedQuerySet


class ImportNetwork(models.Model):
    """A private network that an admin allowed, as `ipaddress` writes it (`10.20.0.0/16`)."""

    network = models.CharField(max_length=49, unique=True)
    reason = models.CharField(max_length=200)
    person = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    allowed_at = models.DateTimeField(auto_now_add=True)

    objects = RestrictedQuerySet.as_manager()
    estate = True

    class Meta:
        ordering = ["pk"]

    def __str__(self) -> str:
        return self.network
