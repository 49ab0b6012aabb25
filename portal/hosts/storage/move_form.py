"""The form by which a volume goes to another pool. Not for: which pools take it (`moving`)."""

from typing import Any, cast

from django import forms
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from portal.core.templatetags.gatehouse import gib
from portal.hosts.models import PoolAttachment, Volume
from portal.hosts.storage import moving


class ToPool(forms.Form):
    """Another pool, and what the volume is called there."""

    prefix = "other"
    pool = forms.ModelChoiceField(PoolAttachment.objects.none(), label=_("Pool"), empty_label=None)
    name = forms.CharField(label=_("Name there"), max_length=127)

    def __init__(self, data: Any = None, *, volume: Volume) -> None:
        super().__init__(data, initial={"name": volume.name})
        self.pools = moving.targets(volume)
        field = cast(forms.ModelChoiceField, self.fields["pool"])
        field.queryset = PoolAttachment.objects.filter(pk__in=[pool.pk for pool in self.pools])
        known = {pool.pk: pool for pool in self.pools}
        field.label_from_instance = lambda pool: _label(known[pool.pk])  # type: ignore[assignment,method-assign]


def _label(pool: PoolAttachment) -> str:
    told = {"pool": pool.pool.name, "free": gib(pool.observed_available)}
    return gettext("%(pool)s, %(free)s free") % told
