"""What admins type of an image that they add, or that is there. Not for: what of it is allowed."""

from collections.abc import Sequence
from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from portal.accounts.models import Project
from portal.core.web.forms import ExplainedCheckboxes, ExplainedRadio, GibField, SeenForm
from portal.hosts.images.services import image_snapshot
from portal.hosts.images.values import Wanted
from portal.hosts.models import Image
from vms.virtualization import HELP, Devices


class _SharedForm(forms.Form):
    """Which system is in it, and who may use it."""

    os = forms.CharField(
        label=_("System"),
        max_length=64,
        required=False,
        help_text=_("As osinfo-db calls it: debian12, ubuntu24.04, win2k22. Empty when it is none of those."),
    )
    every_project = forms.TypedChoiceField(
        label=_("Who may use it"),
        choices=[("1", _("Every project")), ("0", _("Only the projects chosen here"))],
        coerce=lambda value: value == "1",
        initial="1",
        widget=ExplainedRadio,
    )
    projects = forms.ModelMultipleChoiceField(
        Project.objects.none(), label=_("Projects"), required=False, widget=ExplainedCheckboxes
    )

    def __init__(self, *args: Any, actor: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        projects: Any = self.fields["projects"]
        projects.queryset = Project.objects.restrict(actor, "administer").order_by("name")

    def chosen(self) -> tuple[int, ...]:
        """Return the keys of the chosen projects, none when it is for every one."""
        if self.cleaned_data["every_project"]:
            return ()
        return tuple(project.pk for project in self.cleaned_data["projects"])


class DescribeForm(SeenForm, _SharedForm):
    """What may be changed of an image that is there."""

    salt = "vms.catalogue.image"
    #: What somebody else changed meanwhile: (value, as it was seen, as it is).
    changes: Sequence[tuple[str, Any, Any]] = ()

    uefi = forms.BooleanField(
        label=_("It starts by UEFI"),
        required=False,
        help_text=_("Machines made from it from now on get that firmware in place of a BIOS."),
    )
    field_order: Sequence[str] = ("os", "uefi")

    def __init__(self, data: Any = None, *, actor: Any, image: Image) -> None:
        initial = {
            "os": image.os,
            "uefi": image.uefi,
            "every_project": "1" if image.every_project else "0",
            "projects": list(image.projects.all()),
        }
        super().__init__(data, initial=initial, actor=actor)
        if not self.is_bound:
            self.show(image_snapshot(image))


KINDS = {
    "disk": _(
        "A qcow2, a raw disk that can be booted, or an OVA. Machines start from it. What an OVA says of its "
        "machine is taken where nothing is said here."
    ),
    "iso": _("An ISO 9660 image: an installer, drivers, a rescue system. Machines have it in a drive."),
}


class AddForm(_SharedForm):
    """An image that a person adds; its file follows from their computer."""

    kind = forms.ChoiceField(
        label=_("It is"), choices=Image.Kind.choices, initial="disk", widget=ExplainedRadio
    )
    title = forms.CharField(label=_("Title"), max_length=100, help_text=_("Such as Debian 12 with Python."))
    name = forms.CharField(
        label=_("Name"),
        max_length=40,
        help_text=_("Small letters, digits and hyphens. Versions of one image have one name."),
    )
    version = forms.CharField(label=_("Version"), max_length=64, initial="1")
    description = forms.CharField(
        label=_("Description"), max_length=2000, required=False, widget=forms.Textarea(attrs={"rows": 3})
    )
    min_memory = GibField(
        label=_("Least memory in GiB"),
        required=False,
        help_text=_("Empty: what an OVA says of its machine, 1 GiB for everything else."),
    )
    login_user = forms.CharField(label=_("Sign in as"), max_length=32, required=False)
    cloud_init = forms.BooleanField(
        label=_("cloud-init is in it, and puts people's SSH keys there"), required=False
    )
    device_models = forms.MultipleChoiceField(
        label=_("Has drivers for"),
        choices=Devices.choices,
        initial=[Devices.PARAVIRTUAL.value],
        widget=ExplainedCheckboxes,
    )
    disk = forms.IntegerField(
        label=_("Disk of an OVA, by its number"),
        required=False,
        help_text=_("Empty: the only one. Of several you choose when the file is here, from a list of them."),
    )
    sha256 = forms.CharField(
        label=_("SHA-256 of the file"),
        max_length=100,
        required=False,
        help_text=_("Where you know it: a file with another one is thrown away. It is computed anyway."),
    )
    field_order: Sequence[str] = ("kind", "title", "name", "version", "description", "os")

    def __init__(self, data: Any = None, *, actor: Any) -> None:
        super().__init__(data, actor=actor)
        self.fields["kind"].widget.explained = KINDS  # type: ignore[attr-defined]
        explained = {value: HELP[Devices(value)] for value in Devices.values}
        self.fields["device_models"].widget.explained = explained  # type: ignore[attr-defined]

    def wanted(self) -> Wanted:
        """Return what was typed, as the service takes it."""
        typed = self.cleaned_data
        same = ("kind", "name", "title", "version", "os", "description", "login_user", "cloud_init")
        return Wanted(
            **{name: typed[name] for name in same},
            min_memory=typed["min_memory"] or 0,
            device_models=tuple(typed["device_models"]),
            every_project=typed["every_project"],
            projects=self.chosen(),
        )


class FetchForm(AddForm):
    """An image that the portal fetches from an address."""

    address = forms.CharField(
        label=_("Address of the file"),
        max_length=2000,
        widget=forms.URLInput(attrs={"placeholder": "https://"}),
        help_text=_("The portal fetches it. One that is not public is refused unless it is allowed."),
    )
    field_order = ("address", "sha256", *AddForm.field_order)

    def __init__(self, data: Any = None, *, actor: Any) -> None:
        super().__init__(data, actor=actor)
        self.fields["sha256"].required = True
        told = _("Published beside the file. A file with another one is thrown away.")
        self.fields["sha256"].help_text = told
