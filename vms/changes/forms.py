"""What people type to change a machine's size or disks. Not for: what may be asked, as services know."""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

from django import forms
from django.db.models import QuerySet
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from portal.accounts.forms import OwnKeysField
from portal.accounts.models import SshPublicKey
from portal.core import public_keys
from portal.core.templatetags.gatehouse import gib
from portal.core.web.forms import GibField, SeenForm
from portal.hosts.models import PoolAttachment, Volume
from portal.operations.models import Operation
from vms.changes.moving import Place
from vms.services import DAY


class ChangeForm(SeenForm):
    """A change that may need consent: the size that was seen, what for, and which request it edits."""

    #: The sizes that the form asks for.
    SIZES: ClassVar[tuple[str, ...]] = ()

    token = forms.UUIDField(widget=forms.HiddenInput)
    spec_hash = forms.CharField(widget=forms.HiddenInput, required=False)

    def __init__(
        self,
        data: Any = None,
        *,
        now: Mapping[str, int],
        like: Operation | None = None,
        edited: Operation | None = None,
    ) -> None:
        shown = edited or like
        frozen = shown.frozen if shown else {"sizes": now, "pinned": {}}
        initial = {
            **self.filled(frozen),
            "why": frozen["pinned"].get("why", ""),
            "token": uuid.uuid4(),
            "spec_hash": edited.spec_hash if edited else "",
        }
        super().__init__(data, initial=initial)
        self.fields["why"] = forms.CharField(
            label=_("What for"),
            required=False,
            max_length=500,
            help_text=_("Who approves reads it."),
            widget=forms.TextInput,
        )
        self.now = dict(now)
        if not self.is_bound:
            self.show(self.now)

    @staticmethod
    def filled(frozen: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the fields say of a request, or of what is now."""
        return dict(frozen["sizes"])

    @property
    def seen_sizes(self) -> dict[str, int]:
        """Return the sizes that were on the page."""
        return dict(self.cleaned_data["seen"])

    @property
    def sizes(self) -> dict[str, int]:
        """Return the sizes that were typed."""
        return {name: self.cleaned_data[name] for name in self.SIZES}


class ResizeForm(ChangeForm):
    """Another number of processors, another amount of memory."""

    salt = "vms.changes.size"
    SIZES = ("vcpu", "memory")

    vcpu = forms.IntegerField(label=_("vCPUs"), widget=forms.NumberInput(attrs={"min": 1}))
    memory = GibField(
        label=_("Memory in GiB"),
        help_text=_(
            "What its guest has. One that is left less than it needs gets slow, or ends programs of its own."
        ),
    )
    ceiling = GibField(
        label=_("Memory ceiling in GiB"),
        required=False,
        help_text=_(
            "Up to it the memory can be changed while the machine runs. Empty, it is the same as the memory. "
            "Quotas and the host count the ceiling: the machine has all of it while it starts, and a guest "
            "may keep it."
        ),
    )

    @staticmethod
    def filled(frozen: Mapping[str, Any]) -> dict[str, Any]:
        sizes = frozen["sizes"]
        told = sizes.get("memory_now") or frozen["pinned"].get("memory_now") or sizes["memory"]
        memory = min(told, sizes["memory"])
        ceiling = sizes["memory"] if memory < sizes["memory"] else ""
        return {"vcpu": sizes["vcpu"], "memory": memory, "ceiling": ceiling}

    @property
    def sizes(self) -> dict[str, int]:
        """Return the sizes that were typed, by the names of `resizing.sizes_of`."""
        memory, ceiling = self.cleaned_data["memory"], self.cleaned_data["ceiling"]
        typed = {"vcpu": self.cleaned_data["vcpu"], "memory": memory if ceiling is None else ceiling}
        return typed | ({"memory_now": memory} if typed["memory"] != memory else {})


class DiskForm(ChangeForm):
    """A new disk, or a new size of one."""

    salt = "vms.changes.disk"
    SIZES = ("disk",)

    disk = GibField(label=_("Disk in GiB"))


class AttachForm(forms.Form):
    """A volume that lies in a pool, as a disk."""

    token = forms.UUIDField(widget=forms.HiddenInput)
    spec_hash = forms.CharField(widget=forms.HiddenInput, required=False)
    volume = forms.ModelChoiceField(
        Volume.objects.none(),
        label=_("Volume"),
        help_text=_("Those of this machine's host that nobody uses and that can be a disk."),
    )
    why = forms.CharField(
        label=_("What for"), max_length=500, help_text=_("Who approves reads it."), widget=forms.TextInput
    )

    def __init__(
        self,
        data: Any = None,
        *,
        volumes: Sequence[Volume],
        like: Operation | None = None,
        edited: Operation | None = None,
    ) -> None:
        initial: dict[str, Any] = {"token": uuid.uuid4()}
        if shown := edited or like:
            named = shown.frozen["pinned"]
            same = (one.pk for one in volumes if [str(one.pool.pool.uuid), one.name] == _place_of(named))
            initial |= {
                "volume": next(same, None),
                "why": named["why"],
                "spec_hash": edited.spec_hash if edited else "",
            }
        super().__init__(data, initial=initial)
        field = cast(forms.ModelChoiceField, self.fields["volume"])
        wanted = Volume.objects.filter(pk__in=[volume.pk for volume in volumes])
        field.queryset = wanted.select_related("pool__pool").order_by("pool__pool__name", "name")
        field.label_from_instance = self._label  # type: ignore[assignment,method-assign]

    @staticmethod
    def _label(volume: Volume) -> str:
        told = {"pool": volume.pool.pool.name, "name": volume.name, "size": gib(volume.observed_capacity, 3)}
        return gettext("%(pool)s: %(name)s, %(size)s") % told


def _place_of(named: Mapping[str, Any]) -> list[str]:
    return [named["pool"], named["volume"]]


class MoveForm(forms.Form):
    """The pool that a disk moves to."""

    pool = forms.ModelChoiceField(PoolAttachment.objects.none(), label=_("Pool"), empty_label=None)

    def __init__(self, data: Any = None, *, places: Sequence[Place]) -> None:
        super().__init__(data)
        self.offer(places)

    def offer(self, places: Sequence[Place]) -> None:
        """Offer these pools from now on."""
        field = cast(forms.ModelChoiceField, self.fields["pool"])
        field.queryset = PoolAttachment.objects.filter(pk__in=[place.pool.pk for place in places])
        words = {place.pool.pk: place for place in places}

        def label(pool: PoolAttachment) -> str:
            place = words[pool.pk]
            told = {"pool": place.pool.pool.name, "left": gib(place.left)}
            return gettext("%(pool)s, %(left)s left") % told

        field.label_from_instance = label  # type: ignore[assignment,method-assign]


class CloneForm(forms.Form):
    """The name and the lease of a clone, what it is for, and whom else it lets in."""

    token = forms.UUIDField(widget=forms.HiddenInput)
    spec_hash = forms.CharField(widget=forms.HiddenInput, required=False)
    name = forms.CharField(label=_("Name"), max_length=63)
    lease = forms.IntegerField(label=_("Lease in days"))
    why = forms.CharField(
        label=_("What for"), max_length=500, help_text=_("Who approves reads it."), widget=forms.TextInput
    )
    own_keys = OwnKeysField(
        help_text=_("cloud-init lets them in, beside those that were let into the original.")
    )

    def __init__(
        self,
        data: Any = None,
        *,
        days: int,
        keys: QuerySet[SshPublicKey] | None = None,
        like: Operation | None = None,
        edited: Operation | None = None,
    ) -> None:
        """`keys` are the person's own, as far as the clone takes any."""
        mine = {key.pk: key for key in keys or ()}
        chosen = [key.pk for key in mine.values() if key.chosen]
        initial: dict[str, Any] = {"token": uuid.uuid4(), "lease": days, "own_keys": chosen}
        if shown := edited or like:
            frozen = shown.frozen
            let_in = set(map(public_keys.same, frozen["pinned"].get("cloud", {}).get("ssh_keys", ())))
            initial |= {
                "name": frozen["pinned"]["name"],
                "lease": frozen["sizes"]["lease"] // DAY,
                "why": frozen["pinned"]["why"],
                "own_keys": [pk for pk, key in mine.items() if public_keys.same(key.line) in let_in],
                "spec_hash": edited.spec_hash if edited else "",
            }
        super().__init__(data, initial=initial)
        if keys is None or not mine:
            del self.fields["own_keys"]
        else:
            cast(OwnKeysField, self.fields["own_keys"]).offer(keys)

    @property
    def values(self) -> dict[str, Any]:
        """Return what was typed, as the services take it."""
        typed = self.cleaned_data
        keys = [key.line for key in typed.get("own_keys", ())]
        return {"name": typed["name"], "lease_days": typed["lease"], "why": typed["why"], "keys": keys}


class TemplateForm(forms.Form):
    """What a template is called, and what is in it; of one disk there is nothing to choose."""

    def __init__(self, data: Any = None, *, disks: int) -> None:
        super().__init__(data)
        if disks < 2:
            del self.fields["whole"]

    title = forms.CharField(
        label=_("Title"), max_length=100, help_text=_("Such as: Debian 12 with our tools.")
    )
    description = forms.CharField(
        label=_("Description"),
        required=False,
        max_length=2000,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text=_("What is in it, for who chooses it."),
    )
    whole = forms.TypedChoiceField(
        label=_("Disks"),
        choices=[("1", _("All of them")), ("0", _("Only the one that it starts from"))],
        coerce=lambda value: value == "1",
        initial="1",
        widget=forms.RadioSelect,
    )
