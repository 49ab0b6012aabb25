"""The request form. Not for: rules about requests, which `vms.checks` and the service keep."""

import uuid
from collections.abc import Mapping
from functools import partial
from typing import Any, cast

from django import forms
from django.core.validators import MinValueValidator
from django.db.models import QuerySet
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from networks.models import Network
from portal.accounts.forms import OwnKeysField
from portal.accounts.models import Project, SshPublicKey
from portal.core import public_keys
from portal.core.templatetags.gatehouse import gib
from portal.core.web.forms import ExplainedRadio, GibField
from portal.operations.models import Operation
from vms import checks, direct_boot, fitting, profiles
from vms.bulk import LOSING
from vms.cards import size_label
from vms.catalogue import appliances
from vms.models import CatalogueItem, Flavour, InstallTemplate
from vms.offers import Offer, offer
from vms.services import DAY, DEPLOY, Wish
from vms.virtualization import HELP, Devices, Wanted

_PLAIN = {"autocomplete": "off", "spellcheck": "false", "autocapitalize": "none"}
_GONE = {"invalid_choice": _("This is not offered any more; choose another.")}


class RequestForm(forms.Form):
    """One screen: what, where, how long, why; cloud-init below.

    What is refused while one types is refused here too, all of it at once and each at its field.
    """

    #: The form's names of what the ledger calls otherwise.
    FIELDS: Mapping[str, str] = {
        "vcpu": "flavour",
        "memory": "flavour",
        "machines": "project",
        "lease": "lease_days",
    }

    was_tried = False

    token = forms.UUIDField(widget=forms.HiddenInput)
    #: Whether it was sent once: then also what is missing is said while one types.
    tried = forms.CharField(widget=forms.HiddenInput, required=False)
    project = forms.ModelChoiceField(Project.objects.none(), label=_("Project"), empty_label=None)
    name = forms.CharField(
        label=_("Name"),
        max_length=63,
        help_text=_("Small letters, digits, hyphens."),
        widget=forms.TextInput(attrs=_PLAIN),
    )
    count = forms.IntegerField(
        label=_("How many"),
        initial=1,
        required=False,
        widget=forms.NumberInput(attrs={"min": 1, "max": checks.MOST_AT_ONCE}),
        help_text=_("Several are called name-1, name-2 and so on, and asked for by one request."),
    )
    flavour = forms.ModelChoiceField(
        Flavour.objects.none(), label=_("Size"), empty_label=None, error_messages=_GONE
    )
    disk = GibField(label=_("Disk in GiB"), required=False)
    network = forms.ModelChoiceField(
        Network.objects.none(), label=_("Network"), empty_label=None, error_messages=_GONE
    )
    devices = forms.ChoiceField(label=_("Devices"), required=False, widget=ExplainedRadio)
    accelerator = forms.ChoiceField(label=_("Processor"), required=False, widget=ExplainedRadio)
    profile = forms.ChoiceField(label=_("Board"), required=False, widget=ExplainedRadio)
    lease_days = forms.IntegerField(label=_("Lease in days"))
    why = forms.CharField(label=_("What is it for?"), max_length=500)
    user = forms.CharField(label=_("Login user"), max_length=32, widget=forms.TextInput(attrs=_PLAIN))
    packages = forms.CharField(
        label=_("Packages"),
        required=False,
        max_length=2000,
        help_text=_("Debian packages to install."),
        widget=forms.TextInput(attrs=_PLAIN),
    )
    own_keys = OwnKeysField()
    ssh_keys = forms.CharField(
        label=_("SSH public keys"),
        required=False,
        max_length=20_000,
        widget=forms.Textarea(attrs={"rows": 2, **_PLAIN}),
        help_text=_("One a line, such as the content of id_ed25519.pub."),
    )
    template = forms.ModelChoiceField(
        InstallTemplate.objects.none(),
        label=_("Installation"),
        required=False,
        empty_label=_("By hand, on its screen or serial console"),
        help_text=_("By a template, the installer asks nothing; user and keys are as you say here."),
        error_messages=_GONE,
    )
    user_data = forms.CharField(
        label=_("Own user-data"),
        required=False,
        max_length=20_000,
        strip=False,
        widget=forms.Textarea(attrs={"rows": 6, "class": "font-monospace", **_PLAIN}),
        help_text=_("A #cloud-config document, checked against cloud-init's schema."),
    )

    def __init__(
        self,
        data: Any = None,
        *,
        item: CatalogueItem,
        projects: QuerySet[Project],
        keys: QuerySet[SshPublicKey] | None = None,
        filled: Mapping[str, Any] | None = None,
    ) -> None:
        initial = {
            "token": uuid.uuid4(),
            "lease_days": item.lease_days,
            "user": item.image.login_user,
            "flavour": _first_size(item),
            "network": item.networks.first(),
            "devices": item.default_devices,
            "accelerator": item.default_accelerator,
        }
        super().__init__(data, initial=initial | dict(filled or {}))
        self.item = item
        self.fields["project"].queryset = projects  # type: ignore[attr-defined]
        self.fields["flavour"].queryset = item.flavours.all()  # type: ignore[attr-defined]
        self.fields["flavour"].label_from_instance = partial(size_label, item)  # type: ignore[attr-defined]
        self.fields["network"].queryset = item.networks.all()  # type: ignore[attr-defined]
        told = appliances.had(item.image), appliances.further(item.image)
        self.fields["flavour"].help_text = " ".join(filter(None, told))
        self._offer_keys(keys)
        self._limit_disk(item)
        self._limit_virtualization(offer(item))
        self._limit_profiles(item)
        self.fields["lease_days"].help_text = _("At most %(most)d.") % {"most": item.longest_lease_days}
        self._offer_templates(item)
        if not item.image.cloud_init or item.image.needs_installer:
            for name in ("packages", "user_data"):
                del self.fields[name]
        for field in self.fields.values():
            field.live = True  # type: ignore[attr-defined]
        if data is not None:
            # For the form that is drawn again; what came is kept as it is.
            self.was_tried = bool(data.get("tried"))
            again = data.copy()
            again["tried"] = "1"
            self.data = again

    def _offer_keys(self, keys: QuerySet[SshPublicKey] | None) -> None:
        """Offer the keys that the person keeps; those of an earlier request are ticked, the rest is text."""
        kept = {public_keys.same(key.line): key for key in keys or ()}
        if keys is None or not kept:
            del self.fields["own_keys"]
            return
        cast(OwnKeysField, self.fields["own_keys"]).offer(keys)
        self.fields["ssh_keys"].label = _("Further SSH public keys")
        if "ssh_keys" not in self.initial:
            self.initial["own_keys"] = [key.pk for key in kept.values() if key.chosen]
            return
        lines = self.initial["ssh_keys"].splitlines()
        self.initial["own_keys"] = [kept[same].pk for same in map(public_keys.same, lines) if same in kept]
        self.initial["ssh_keys"] = "\n".join(line for line in lines if public_keys.same(line) not in kept)

    def _offer_templates(self, item: CatalogueItem) -> None:
        """Offer what the installer of the item reads; what needs no installer has no such field."""
        if not item.image.needs_installer:
            del self.fields["template"]
            return
        # The answers of one are another's in nothing but their names.
        del self.fields["count"]
        user = self.fields["user"]
        user.required = False
        user.help_text = _("For a template. By hand, the installer asks.")
        offered = InstallTemplate.objects.filter(format__in=direct_boot.formats(item.image))
        field = self.fields["template"]
        field.queryset = offered  # type: ignore[attr-defined]
        field.help_text = f"{field.help_text} {direct_boot.remark(item.image)}".strip()

    def _limit_disk(self, item: CatalogueItem) -> None:
        if item.disk_most is None:
            del self.fields["disk"]
            return
        self.fields["disk"].help_text = _("Empty: what the size has. %(least)s to %(most)s.") % {
            "least": gib(checks.least_disk(item), 3),
            "most": gib(item.disk_most, 3),
        }

    def _limit_virtualization(self, offered: Offer) -> None:
        """Offer only what a host was proven to give, each with what it means; a single way is no choice."""
        for name, choices, values in (
            ("devices", Devices, offered.devices),
            ("accelerator", Wanted, offered.accelerators),
        ):
            if len(values) < 2:
                del self.fields[name]
                continue
            field = self.fields[name]
            field.choices = [(value, choices(value).label) for value in values]  # type: ignore[attr-defined]
            field.widget.explained = {value: HELP[choices(value)] for value in values}  # type: ignore[attr-defined]

    def _limit_profiles(self, item: CatalogueItem) -> None:
        """Offer the boards that a host can give, and say why it cannot give the others."""
        known = profiles.profiles_of(item.image)
        reasons = {board: profiles.refusal(item, board) for board in known}
        given = [board for board in known if not reasons[board]]
        if len(known) < 2 or not given:
            del self.fields["profile"]
            return
        field = self.fields["profile"]
        field.choices = [(board.value, board.label) for board in given]  # type: ignore[attr-defined]
        field.widget.explained = {board.value: profiles.HELP[board] for board in given}  # type: ignore[attr-defined]
        field.help_text = " ".join(filter(None, reasons.values()))
        if self.initial.get("profile") not in given:
            self.initial["profile"] = given[0].value

    def clean(self) -> dict[str, Any]:
        """Say at each field what stands in the way."""
        for field, refusal in checks.refusals(self.item, self.cleaned_data).items():
            self.add_error(field if field in self.fields else None, refusal)
        return self.cleaned_data

    def wish(self) -> Wish:
        """Return what was asked, as the service takes it."""
        mine = {"token", "tried", "project", "spec_hash", "operation", "own_keys"}
        asked = {name: value for name, value in self.cleaned_data.items() if name not in mine}
        return Wish(item=self.item, **asked | {"ssh_keys": "\n".join(self._all_keys())})

    def _all_keys(self) -> list[str]:
        """Return the lines of all keys, those that were ticked first, each once."""
        lines = [key.line for key in self.cleaned_data.get("own_keys", ())]
        lines += [line.strip() for line in self.cleaned_data.get("ssh_keys", "").splitlines() if line.strip()]
        return public_keys.each_once(lines)


def _first_size(item: CatalogueItem) -> Flavour | None:
    """Return the size that a request begins with: one that its image goes with, where there is one.

    Of those the smallest with as much as the machine had that the image comes from.
    """
    sizes = list(item.flavours.all())
    able = [size for size in sizes if fitting.fits(item, size, item.image)]
    return appliances.proposed(item.image, able) or next(iter(able or sizes), None)


class SeenRequest(forms.Form):
    """Changes a request that waits, which must be the one that was seen."""

    spec_hash = forms.CharField(widget=forms.HiddenInput)

    def see(self, operation: Operation) -> None:
        """Be about `operation` as it is now, with what was typed: the next time it is sent on purpose."""
        typed: Any = self.data
        typed = typed.copy()
        typed["spec_hash"] = operation.spec_hash
        self.data = typed


class ExtensionForm(forms.Form):
    """By how many days a lease is extended, and why. Not for: how many may be, which the service keeps."""

    #: The form's name of what the service calls otherwise.
    FIELDS: Mapping[str, str] = {"lease": "days"}

    token = forms.UUIDField(widget=forms.HiddenInput)
    days = forms.IntegerField(label=_("Days to add"))
    why = forms.CharField(label=_("What is it still for?"), max_length=500)

    def __init__(self, data: Any = None, *, most: int, filled: Mapping[str, Any] | None = None) -> None:
        super().__init__(data, initial={"token": uuid.uuid4(), **(filled or {})})
        self.fields["days"].help_text = _("At most %(most)d.") % {"most": most}

    @classmethod
    def like(cls, operation: Operation) -> dict[str, Any]:
        """Return the values of an earlier request."""
        asked = operation.frozen
        return {"days": asked["sizes"]["lease"] // DAY, "why": asked["pinned"]["why"]}


class ExtensionEditForm(SeenRequest, ExtensionForm):
    """The same for a request that waits."""

    def __init__(self, data: Any = None, *, operation: Operation, most: int) -> None:
        filled = {"spec_hash": operation.spec_hash, **self.like(operation)}
        super().__init__(data, most=most, filled=filled)
        del self.fields["token"]


class EditForm(SeenRequest, RequestForm):
    """The same as a request for a request that waits: its project stays."""

    operation = forms.CharField(widget=forms.HiddenInput, required=False)

    def __init__(
        self,
        data: Any = None,
        *,
        operation: Operation,
        item: CatalogueItem,
        filled: Mapping[str, Any],
        keys: QuerySet[SshPublicKey] | None = None,
    ) -> None:
        seen = {"spec_hash": operation.spec_hash, "operation": operation.pk}
        mine = Project.objects.filter(operation=operation)
        super().__init__(data, item=item, projects=mine, keys=keys, filled={**filled, **seen})
        if operation.kind != DEPLOY:
            self.fields.pop("count", None)
        else:
            least = MinValueValidator(2, _("A request for several machines stays one: at least 2."))
            self.fields["count"].validators.append(least)
            self.fields["count"].required = True
        self.fields["project"].disabled = True
        self.fields["project"].initial = operation.project_id
        self.initial["project"] = operation.project_id


class BulkForm(forms.Form):
    """Confirms what is done to many machines; what loses something by their number."""

    token = forms.UUIDField(widget=forms.HiddenInput)
    confirm_count = forms.CharField(
        required=False, max_length=10, widget=forms.TextInput(attrs={"inputmode": "numeric", **_PLAIN})
    )

    def __init__(self, data: Any = None, *, count: int, verb: str) -> None:
        super().__init__(data, initial={"token": uuid.uuid4()})
        if verb in LOSING:
            self.fields["confirm_count"].label = gettext(
                "Type %(count)d, the number of machines, to confirm"
            ) % {"count": count}
        else:
            del self.fields["confirm_count"]
