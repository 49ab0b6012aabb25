"""What the accounts pages read from a POST. Not for: permission, which services check."""

from typing import Any

from allauth.account.forms import LoginForm
from django import forms
from django.contrib.auth import password_validation
from django.contrib.auth.validators import UnicodeUsernameValidator
from django.db.models import QuerySet
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from portal.accounts import notices
from portal.accounts.models import Project, Role, SshPublicKey, Theme, User
from portal.core.web.forms import ExplainedCheckboxes, RowsField
from portal.core.web.middleware import zone_names

EVERY_PROJECT = "every"


class RoleField(forms.ChoiceField):
    """A role, with what each is for."""

    def __init__(self, **kwargs: Any) -> None:
        duties = gettext_lazy(
            "Requesters ask for machines, approvers decide, operators run hosts and networks, "
            "auditors see everything (with the role in every project also the trail), admins do all of it "
            "and settings."
        )
        super().__init__(label=gettext_lazy("Role"), choices=Role.choices, help_text=duties, **kwargs)


class SignInForm(LoginForm):
    """allauth's form in the words of the house."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["login"].label = _("User name or mail address")
        self.fields["login"].widget.attrs["autofocus"] = True
        self.fields["remember"].label = _("Stay signed in on this device")
        # The link to a new password stands below the card.
        self.fields["password"].help_text = ""
        for field in self.fields.values():
            field.widget.attrs.pop("placeholder", None)


class ProjectForm(forms.Form):
    """A project's name."""

    name = forms.CharField(label=gettext_lazy("Name"), max_length=64)


class RoleForm(forms.Form):
    """Who becomes what. People are named exactly, so that a project's admin needs no list of everybody."""

    person = forms.CharField(
        label=gettext_lazy("User name or mail address"),
        max_length=254,
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )
    role = RoleField()

    def clean_person(self) -> User:
        """Return the person. Raises ValidationError when nobody is called so."""
        typed = self.cleaned_data["person"]
        found = User.objects.filter(username=typed).first()
        found = found or User.objects.exclude(email="").filter(email__iexact=typed).first()
        if found is None:
            raise forms.ValidationError(_("Nobody here has this name. Invite them below."))
        return found


class PlaceRoleForm(forms.Form):
    """A role, and where: for who administers more than one project."""

    # Nothing is chosen beforehand: the widest role of all must not be given by a hasty click.
    project = forms.ChoiceField(label=gettext_lazy("Project"))
    role = RoleField()

    def __init__(self, *args: Any, actor: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.projects = {
            str(project.pk): project
            for project in Project.objects.restrict(actor, "administer").order_by("name")
        }
        names = [(key, project.name) for key, project in self.projects.items()]
        choices = [("", _("Choose")), *names, (EVERY_PROJECT, _("Every project"))]
        self.fields["project"].choices = choices  # type: ignore[attr-defined]

    def clean_project(self) -> Project | None:
        """Return the project, None for every project."""
        return self.projects.get(self.cleaned_data["project"])


class _InvitationFields(forms.Form):
    email = forms.EmailField(
        label=gettext_lazy("Mail address"),
        required=False,
        help_text=gettext_lazy("Leave it empty to get a link that you hand over yourself."),
        widget=forms.EmailInput(attrs={"autocomplete": "off"}),
    )
    days = forms.IntegerField(label=gettext_lazy("Good for days"), min_value=1, max_value=90, initial=7)


class InviteForm(_InvitationFields, PlaceRoleForm):
    """An invitation to any project."""

    field_order = ["email", "project", "role", "days"]


class ProjectInviteForm(_InvitationFields):
    """An invitation to the project whose page it stands on."""

    role = RoleField()
    field_order = ["email", "role", "days"]


class AcceptForm(forms.Form):
    """A new person's account."""

    username = forms.CharField(
        label=gettext_lazy("User name"),
        max_length=150,
        validators=[UnicodeUsernameValidator()],
        help_text=gettext_lazy("Letters, digits and @ . + - _"),
        widget=forms.TextInput(
            attrs={"autocomplete": "username", "autocapitalize": "none", "autofocus": True}
        ),
    )
    first_name = forms.CharField(
        label=gettext_lazy("First name"),
        max_length=150,
        required=False,
        widget=forms.TextInput(attrs={"autocomplete": "given-name"}),
    )
    last_name = forms.CharField(
        label=gettext_lazy("Last name"),
        max_length=150,
        required=False,
        widget=forms.TextInput(attrs={"autocomplete": "family-name"}),
    )
    email = forms.EmailField(
        label=gettext_lazy("Mail address"), widget=forms.EmailInput(attrs={"autocomplete": "email"})
    )
    password = forms.CharField(
        label=gettext_lazy("Password"),
        strip=False,
        help_text=gettext_lazy("At least 10 characters, and not one that everybody uses."),
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
    )

    def clean(self) -> dict[str, Any]:
        """Check the password against the rules and against the person's own names."""
        data = super().clean() or {}
        if data.get("password"):
            names = ("username", "first_name", "last_name", "email")
            person = User(**{name: data.get(name, "") for name in names})
            try:
                password_validation.validate_password(data["password"], person)
            except forms.ValidationError as error:
                self.add_error("password", error)
        return data


class ProfileForm(forms.ModelForm):
    """One's own name, mail and preferences; saved by the service, not by the form."""

    time_zone = forms.ChoiceField(label=gettext_lazy("Time zone"), required=False)
    password = forms.CharField(
        label=gettext_lazy("Your password"),
        required=False,
        strip=False,
        help_text=gettext_lazy("Only to change the mail address: it is where a lost password is reset."),
        widget=forms.PasswordInput(attrs={"autocomplete": "current-password"}),
    )

    class Meta:
        model = User
        fields = ["first_name", "last_name", "email", "theme", "time_zone"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["email"].label = _("Mail address")
        self.fields["email"].required = bool(self.instance.email)
        zones = [(name, name.replace("_", " ")) for name in zone_names()]
        self.fields["time_zone"].choices = [("", _("The browser's")), *zones]  # type: ignore[attr-defined]

    def clean(self) -> dict[str, Any]:
        """Ask for the password when the mail address changes. Raises no error for any other change."""
        data = super().clean() or {}
        password = data.pop("password", "")
        stored = User.objects.get(pk=self.instance.pk)
        moved = data.get("email") is not None and data["email"] != stored.email
        if moved and not stored.check_password(password):
            self.add_error("password", _("Type your password to change the mail address."))
        return data


class OwnKeysField(RowsField):
    """Those of the keys that a person keeps which a machine lets in."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            SshPublicKey.objects.none(),
            label=gettext_lazy("Your SSH keys"),
            required=False,
            widget=ExplainedCheckboxes,
            error_messages={
                "invalid_choice": gettext_lazy("This key was removed from your profile; choose again.")
            },
            **options,
        )

    def offer(self, keys: QuerySet[SshPublicKey]) -> None:
        """Offer these keys, each with its fingerprint."""
        self.queryset = keys
        self.widget.explained = {str(key.pk): key.fingerprint for key in keys}


class PublicKeyForm(forms.Form):
    """A public key to keep. Not for: whether it is one, which the service says."""

    name = forms.CharField(
        label=gettext_lazy("Name"),
        max_length=64,
        required=False,
        help_text=gettext_lazy("Such as the computer it lies on. Empty: the comment behind the key."),
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )
    line = forms.CharField(
        label=gettext_lazy("Public key"),
        max_length=20_000,
        help_text=gettext_lazy("One line, such as the content of id_ed25519.pub."),
        widget=forms.Textarea(
            attrs={"rows": 3, "autocomplete": "off", "spellcheck": "false", "autocapitalize": "none"}
        ),
    )


class MailsForm(forms.Form):
    """Which mails a person wants; one box a kind of notice."""

    wanted = forms.MultipleChoiceField(
        label=gettext_lazy("Send me a mail when"), required=False, widget=ExplainedCheckboxes
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        choices = [(kind.name, kind.label) for kind in notices.kinds()]
        self.fields["wanted"].choices = choices  # type: ignore[attr-defined]


class ThemeForm(forms.Form):
    """What the switch in the menu sends."""

    theme = forms.ChoiceField(choices=Theme.choices)
