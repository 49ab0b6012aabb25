"""What admins type into the catalogue. Not for: what values are allowed, which the services keep."""

from decimal import Decimal
from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from networks.models import Network
from portal.accounts.models import Project
from portal.core.templatetags.gatehouse import gib
from portal.core.web.forms import ExplainedCheckboxes, ExplainedRadio, RowsField, SeenForm
from portal.hosts.models import Image
from vms.cards import memory_of
from vms.catalogue.appliances import fitting, size_of
from vms.catalogue.values import GIB, ICONS, MIB, ItemValues, SizeValues, item_snapshot, size_snapshot
from vms.models import CatalogueItem, Flavour
from vms.virtualization import HELP, Devices, Wanted

SALT = "vms.catalogue.seen"


class IconRadio(forms.RadioSelect):
    """One of the pictures."""

    template_name = "vms/admin/icons.html"


class ImageField(forms.ModelChoiceField):
    """An image by title, version and digest."""

    def label_from_instance(self, image: Any) -> str:
        """Return what tells two builds of one image apart."""
        return f"{image.label} ({image.sha256[:12]})"


class SizesField(RowsField):
    """Sizes with what they hold."""

    def label_from_instance(self, size: Any) -> str:
        """Return the size in one line."""
        return f"{size.name}: {size.vcpus} vCPU, {memory_of(size)}, {gib(size.disk)}"


class _Seen(SeenForm):
    salt = SALT

    def refuse(self, problems: Any) -> None:
        """Put each problem of the service at its field."""
        for field, sentence in problems:
            self.add_error(field if field in self.fields else None, sentence)


def _cost(label: Any, help_text: Any = "") -> forms.DecimalField:
    return forms.DecimalField(label=label, help_text=help_text, max_digits=10, decimal_places=2, initial=0)


class ItemForm(_Seen):
    """Something that can be asked for."""

    name = forms.CharField(label=_("Name"), max_length=80)
    description = forms.CharField(
        label=_("Description"),
        max_length=2000,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text=_("What it is for, in the words of who asks."),
    )
    icon = forms.ChoiceField(
        label=_("Picture"), choices=[(name, name) for name in ICONS], widget=IconRadio, initial="server"
    )
    image = ImageField(Image.objects.none(), label=_("Image"), empty_label=None)
    flavours = SizesField(
        Flavour.objects.none(), label=_("Sizes"), required=False, widget=ExplainedCheckboxes
    )
    networks = RowsField(
        Network.objects.none(), label=_("Networks"), required=False, widget=ExplainedCheckboxes
    )
    disk_least = forms.IntegerField(label=_("Smallest disk in GiB"), required=False)
    disk_most = forms.IntegerField(
        label=_("Largest disk in GiB"),
        required=False,
        help_text=_("Leave both empty and the disk is always the size's own."),
    )
    linked_clone = forms.TypedChoiceField(
        label=_("Disks are"),
        choices=[("1", _("Linked clones")), ("0", _("Full clones"))],
        coerce=lambda value: value == "1",
        initial="1",
        widget=ExplainedRadio,
    )
    device_models = forms.MultipleChoiceField(
        label=_("Devices that may be asked for"),
        choices=Devices.choices,
        required=False,
        widget=ExplainedCheckboxes,
    )
    default_devices = forms.ChoiceField(label=_("Devices by default"), choices=Devices.choices)
    accelerators = forms.MultipleChoiceField(
        label=_("Processors that may be asked for"),
        choices=Wanted.choices,
        required=False,
        widget=ExplainedCheckboxes,
    )
    default_accelerator = forms.ChoiceField(label=_("Processor by default"), choices=Wanted.choices)
    lease_days = forms.IntegerField(label=_("Default lease in days"), initial=90)
    longest_lease_days = forms.IntegerField(label=_("Longest lease in days"), initial=365)
    cost_month = _cost(_("Cost a month"), _("On top of the size's."))
    cost_month_gib = _cost(_("Cost a month for each further GiB"), _("Of disk beyond the size's."))
    every_project = forms.TypedChoiceField(
        label=_("Offered to"),
        choices=[("1", _("Every project")), ("0", _("Only the projects chosen here"))],
        coerce=lambda value: value == "1",
        initial="1",
        widget=ExplainedRadio,
    )
    projects = RowsField(
        Project.objects.none(), label=_("Projects"), required=False, widget=ExplainedCheckboxes
    )

    def __init__(
        self, data: Any = None, *, actor: Any, item: CatalogueItem | None = None, image: Image | None = None
    ) -> None:
        sizes = Flavour.objects.restrict(actor, "view")
        begun = _of_item(item) if item else _of_new(image) | {"flavours": fitting(image, sizes)}
        super().__init__(data, initial=begun)
        images = Image.objects.restrict(actor, "view").order_by("title", "-pk")
        kept = images.filter(pk=item.image_id) if item else images.none()
        rows = {
            "image": images.filter(deprecated_at=None) | kept,
            "flavours": sizes,
            "networks": Network.objects.restrict(actor, "view"),
            "projects": Project.objects.restrict(actor, "administer").order_by("name"),
        }
        for name, found in rows.items():
            self.fields[name].queryset = found  # type: ignore[attr-defined]
        for name, values in (("device_models", Devices), ("accelerators", Wanted)):
            self.fields[name].widget.explained = {value: HELP[values(value)] for value in values.values}  # type: ignore[attr-defined]
        self.fields["linked_clone"].widget.explained = CLONES  # type: ignore[attr-defined]
        if item and not self.is_bound:
            self.show(item_snapshot(item))

    def values(self) -> ItemValues:
        """Return what was typed, as the service takes it."""
        typed = {name: value for name, value in self.cleaned_data.items() if name != "seen"}
        for name in ("disk_least", "disk_most"):
            typed[name] = None if typed[name] is None else typed[name] * GIB
        for name in ("device_models", "accelerators"):
            typed[name] = tuple(typed[name])
        return ItemValues(**typed)


CLONES = {
    "1": _("Made in no time, and only what differs from the image takes room."),
    "0": _("A copy of its own: takes longer and more room, and needs the image no more."),
}


def _of_new(image: Image | None) -> dict[str, Any]:
    """Return what a new item begins with; one of `image`, for whom that is."""
    values: dict[str, Any] = {"device_models": [Devices.PARAVIRTUAL.value], "accelerators": Wanted.values}
    if image is not None:
        values |= {"image": image, "name": image.title[:80], "description": image.description}
        if Devices.PARAVIRTUAL not in image.device_models:
            values["device_models"] = image.device_models
            values["default_devices"] = next(iter(image.device_models), "")
        if not image.every_project:
            values |= {"every_project": "0", "projects": list(image.projects.all())}
    return values


def _of_item(item: CatalogueItem) -> dict[str, Any]:
    values: dict[str, Any] = {name: getattr(item, name) for name in ItemForm.base_fields if name != "seen"}
    for name in ("flavours", "networks", "projects"):
        values[name] = list(values[name].all())
    for name in ("disk_least", "disk_most"):
        values[name] = None if values[name] is None else values[name] // GIB
    for name in ("linked_clone", "every_project"):
        values[name] = "1" if values[name] else "0"
    return values


class SizeForm(_Seen):
    """A size that items come in."""

    name = forms.CharField(label=_("Name"), max_length=50)
    vcpus = forms.IntegerField(label=_("vCPUs"), initial=1)
    memory = forms.DecimalField(
        label=_("Memory in GiB"), max_digits=12, decimal_places=4, help_text=_("Such as 0.25, 1 or 16.")
    )
    ceiling = forms.DecimalField(
        label=_("Memory ceiling in GiB"),
        max_digits=12,
        decimal_places=4,
        required=False,
        help_text=_(
            "Up to it the memory of a machine can be changed while it runs. Empty, it is the same as the "
            "memory. Quotas and hosts count the ceiling: a machine has all of it while it starts, and a "
            "guest may keep it. With emulated devices a machine has all of it always."
        ),
    )
    disk = forms.DecimalField(label=_("Disk in GiB"), max_digits=12, decimal_places=4)
    cost_month = _cost(_("Cost a month"))

    def __init__(
        self, data: Any = None, *, size: Flavour | None = None, image: Image | None = None
    ) -> None:
        super().__init__(data, initial=_of_size(size) if size else size_of(image))
        if size and not self.is_bound:
            self.show(size_snapshot(size))

    def values(self) -> SizeValues:
        """Return what was typed, as the service takes it, which refuses what is no whole MiB."""
        typed = {name: value for name, value in self.cleaned_data.items() if name != "seen"}
        given = [name for name in _IN_GIB if typed[name] is not None]
        return SizeValues(**typed | {name: int(typed[name] * GIB) for name in given})


#: What people type in GiB of a size.
_IN_GIB = ("memory", "ceiling", "disk")


def _of_size(size: Flavour) -> dict[str, Any]:
    values: dict[str, Any] = {name: getattr(size, name) for name in SizeForm.base_fields if name != "seen"}
    for name in _IN_GIB:
        amount = values[name]
        values[name] = "" if amount is None else Decimal(amount // MIB) / 1024
    return values


class DeprecateForm(forms.Form):
    """Why nothing new is made from an image."""

    reason = forms.CharField(
        label=_("Why"), max_length=200, help_text=_("People read it when they ask for what uses the image.")
    )
