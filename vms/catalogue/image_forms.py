"""What admins type of an image that they add, or that is there. Not for: what of it is allowed."""

from collections.abc import Sequence
from typing import Any

from django import forms
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from portal.accounts.models import Project
from portal.core.templatetags.gatehouse import gib
from portal.core.web.forms import ExplainedCheckboxes, ExplainedRadio, GibField, RowsField, SeenForm
from portal.hosts.images.allowing import LONGEST_REASON
from portal.hosts.images.describing import returnable, snapshot
from portal.hosts.images.values import FIELDS, Description, Wanted
from portal.hosts.models import Image
from vms.virtualization import HELP, Devices

#: What is said of an image, where the form's label would not do by itself.
SAID = {
    "min_memory": _("Least memory"),
    "min_disk": _("Least disk"),
    "uefi": _("UEFI"),
    "secure_boot": _("Secure Boot"),
    "tpm": _("TPM"),
    "cloud_init": "cloud-init",
}


class _SaidForm(forms.Form):
    """What is said of an image, whether it is there or comes."""

    title = forms.CharField(label=_("Title"), max_length=100, help_text=_("Such as Debian 12 with Python."))
    version = forms.CharField(label=_("Version"), max_length=64, initial="1")
    description = forms.CharField(
        label=_("Description"), max_length=2000, required=False, widget=forms.Textarea(attrs={"rows": 3})
    )
    os = forms.CharField(
        label=_("System"),
        max_length=64,
        required=False,
        help_text=_("As osinfo-db calls it: debian12, ubuntu24.04, win2k22. Empty when it is none of those."),
    )
    uefi = forms.BooleanField(
        label=_("It starts by UEFI"),
        required=False,
        help_text=_("Machines made from it from now on get that firmware in place of a BIOS."),
    )
    secure_boot = forms.BooleanField(
        label=_("UEFI starts only what is signed (Secure Boot)"),
        required=False,
        help_text=_("Windows has it with UEFI anyway. A system whose loader is not signed does not start."),
    )
    tpm = forms.BooleanField(
        label=_("Machines have a TPM 2.0"),
        required=False,
        help_text=_("A new one each: what another machine's TPM kept, such as keys of a disk, is not in it."),
    )
    min_memory = GibField(label=_("Least memory in GiB"))
    min_disk = GibField(
        label=_("Least disk in GiB"),
        required=False,
        help_text=_("Empty: as large as the image itself."),
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
    every_project = forms.TypedChoiceField(
        label=_("Who may use it"),
        choices=[("1", _("Every project")), ("0", _("Only the projects chosen here"))],
        coerce=lambda value: value == "1",
        initial="1",
        widget=ExplainedRadio,
    )
    projects = RowsField(
        Project.objects.none(), label=_("Projects"), required=False, widget=ExplainedCheckboxes
    )

    def __init__(self, *args: Any, actor: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        projects: Any = self.fields["projects"]
        projects.queryset = Project.objects.restrict(actor, "administer").order_by("name")
        explained = {value: HELP[Devices(value)] for value in Devices.values}
        self.fields["device_models"].widget.explained = explained  # type: ignore[attr-defined]

    def said(self) -> dict[str, Any]:
        """Return what was typed, as a `Description` takes it."""
        typed = {name: self.cleaned_data[name] for name in FIELDS}
        chosen = () if typed["every_project"] else tuple(project.pk for project in typed["projects"])
        sizes = {name: typed[name] or 0 for name in ("min_memory", "min_disk")}
        return typed | sizes | {"device_models": tuple(typed["device_models"]), "projects": chosen}


def said_of(image: Image) -> dict[str, Any]:
    """Return what is said of an image, as forms begin with it."""
    said: dict[str, Any] = {name: getattr(image, name) for name in FIELDS}
    return said | {
        "min_disk": image.min_disk or None,
        "every_project": "1" if image.every_project else "0",
        "projects": list(image.projects.all()),
    }


class DescribeForm(SeenForm, _SaidForm):
    """What may be said anew of an image that is there."""

    salt = "vms.catalogue.image"
    #: What somebody else changed meanwhile: (value, as it was seen, as it is).
    changes: Sequence[tuple[str, Any, Any]] = ()
    #: What would follow from it, in sentences, and what tells that they were shown.
    effects: Sequence[str] = ()
    agreed = forms.CharField(widget=forms.HiddenInput, required=False)
    given_back = forms.MultipleChoiceField(
        label=_("Give back to the image builder's list"),
        required=False,
        widget=ExplainedCheckboxes,
        help_text=_(
            "Edited by hand. What is chosen here becomes what the list says, whatever is typed above, and "
            "follows the list from then on."
        ),
    )

    def __init__(self, data: Any = None, *, actor: Any, image: Image) -> None:
        super().__init__(data, initial=said_of(image), actor=actor)
        self._offer_back(image)
        if not image.needs_installer:
            self.fields["min_disk"].help_text = _("Empty: as large as the image itself, %(size)s.") % {
                "size": gib(image.virtual_size, 2)
            }
        if not self.is_bound:
            self.show(snapshot(image))

    def _offer_back(self, image: Image) -> None:
        names = returnable(image)
        if not names:
            del self.fields["given_back"]
            return
        field: Any = self.fields["given_back"]
        field.choices = [(name, label_of(name)) for name in names]
        said = {name: {"said": _in_words(name, image.listed[name])} for name in names}
        field.widget.explained = {name: gettext("The list says: %(said)s") % said[name] for name in names}

    def tell(self, effects: Sequence[str], token: str) -> None:
        """Show what would follow; sent again, the form agrees to that."""
        self.effects = effects
        posted: Any = self.data
        self.data = posted.copy()
        self.data["agreed"] = token  # type: ignore[index]

    def values(self) -> Description:
        """Return what was typed, as the service takes it."""
        return Description(**self.said())


def label_of(name: str) -> str:
    """Return what people call a value that is said of an image."""
    return str(SAID.get(name, DescribeForm.base_fields[name].label))


def _in_words(name: str, value: Any) -> str:
    """Return a value that a list says, for people."""
    if name == "device_models":
        return ", ".join(str(Devices(one).label) for one in value)
    if isinstance(value, bool):
        return gettext("yes") if value else gettext("no")
    if name in ("min_memory", "min_disk"):
        return gib(value, 2)
    return str(value) or gettext("nothing")


KINDS = {
    "disk": _(
        "A qcow2, a disk of VMware, VirtualBox or Hyper-V (VMDK of one file, VDI, VHD, VHDX), a raw disk "
        "that can be booted, or an OVA. Machines start from it. What an OVA says of its machine is taken "
        "where nothing is said here."
    ),
    "iso": _("An ISO 9660 image: an installer, drivers, a rescue system. Machines have it in a drive."),
}


class AddForm(_SaidForm):
    """An image that a person adds; its file follows from their computer."""

    kind = forms.ChoiceField(
        label=_("It is"),
        # An installer from the network is a folder on the portal's machine.
        choices=[choice for choice in Image.Kind.choices if choice[0] != Image.Kind.NETBOOT],
        initial="disk",
        widget=ExplainedRadio,
    )
    name = forms.CharField(
        label=_("Name"),
        max_length=40,
        help_text=_("Small letters, digits and hyphens. Versions of one image have one name."),
    )
    disk = forms.IntegerField(
        label=_("Disk of an OVA, by its number"),
        required=False,
        help_text=_(
            "Empty: all that it has, as the disks of one image. Of more than 16 you choose one when the file "
            "is here, from a list of them."
        ),
    )
    sha256 = forms.CharField(
        label=_("SHA-256 of the file"),
        max_length=100,
        required=False,
        help_text=_("Where you know it: a file with another one is thrown away. It is computed anyway."),
    )
    field_order: Sequence[str] = (
        "kind", "title", "name", "version", "description", "os", "uefi", "secure_boot", "tpm", "min_memory",
        "min_disk", "login_user", "cloud_init", "device_models", "disk", "sha256",
    )  # fmt: skip

    def __init__(self, data: Any = None, *, actor: Any, older: Image | None = None) -> None:
        super().__init__(data, actor=actor, initial=_of_newer(older) if older else None)
        self.fields["kind"].widget.explained = KINDS  # type: ignore[attr-defined]
        self.fields["min_memory"].required = self.fields["device_models"].required = False
        if older is None:
            self.initial["device_models"] = []
        self.fields["device_models"].help_text = _(
            "Nothing chosen: what an OVA says of its machine, which is full virtualization where that had "
            "other disks and cards than virtio's; paravirtualization for everything else."
        )
        self.fields["min_memory"].help_text = _(
            "Empty: what an OVA says of its machine, 1 GiB for everything else."
        )

    def wanted(self) -> Wanted:
        """Return what was typed, as the service takes it."""
        return Wanted(kind=self.cleaned_data["kind"], name=self.cleaned_data["name"], **self.said())


def _of_newer(older: Image) -> dict[str, Any]:
    """Return what a newer version of an image begins with; its own version is for the person to say."""
    return said_of(older) | {"kind": older.kind, "name": older.name, "version": ""}


class FetchForm(AddForm):
    """An image that the portal fetches from an address."""

    address = forms.CharField(
        label=_("Address of the file"),
        max_length=2000,
        widget=forms.URLInput(attrs={"placeholder": "https://"}),
        help_text=_(
            "The portal fetches it. One that is not public is refused unless an admin allowed its network."
        ),
    )
    field_order = ("address", "sha256", *AddForm.field_order)

    def __init__(self, data: Any = None, *, actor: Any, older: Image | None = None) -> None:
        super().__init__(data, actor=actor, older=older)
        self.fields["sha256"].required = True
        told = _("Published beside the file. A file with another one is thrown away.")
        self.fields["sha256"].help_text = told


class NetworkForm(forms.Form):
    """A private network that images may be fetched from."""

    network = forms.CharField(
        label=_("Network"),
        max_length=100,
        help_text=_("Its address and how many bits of it are the network's, such as 10.20.0.0/16."),
        widget=forms.TextInput(
            attrs={"autocomplete": "off", "spellcheck": "false", "autocapitalize": "none"}
        ),
    )
    reason = forms.CharField(
        label=_("Why"), max_length=LONGEST_REASON, help_text=_("Such as: our mirror of Debian's images.")
    )
    agreed = forms.CharField(widget=forms.HiddenInput, required=False)
    #: What follows, in sentences, once somebody has to agree to it.
    effects: Sequence[str] = ()

    def tell(self, network: str, effects: Sequence[str]) -> None:
        """Show what follows; sent again, the form agrees to `network`."""
        self.effects = effects
        posted: Any = self.data
        self.data = posted.copy()
        self.data["agreed"] = network  # type: ignore[index]
