"""People, projects, who is what in which, invitations. Not for: quotas, which are counters in the ledger."""

from typing import Any

from django.contrib.auth.models import AbstractUser
from django.db import models
from django.db.models.functions import Now
from django.utils.crypto import salted_hmac
from django.utils.translation import gettext_lazy as _

from portal.core.querysets import RestrictedQuerySet


class Theme(models.TextChoices):
    """How pages look."""

    SYSTEM = "system", _("Like the system")
    LIGHT = "light", _("Light")
    DARK = "dark", _("Dark")


class User(AbstractUser):
    """A person who signs in."""

    theme = models.CharField(max_length=8, choices=Theme.choices, default=Theme.SYSTEM)
    # Empty: the browser's.
    time_zone = models.CharField(max_length=64, blank=True)
    # Part of what every session is checked against: a new value ends all sessions of the person.
    session_stamp = models.CharField(max_length=32, blank=True, editable=False)

    def _get_session_auth_hash(self, secret: Any = None) -> str:
        """Bind sessions to the password, as Django does, and to the stamp as well."""
        bound = f"{self.password}:{self.session_stamp}"
        return salted_hmac("portal.accounts.session", bound, secret=secret, algorithm="sha256").hexdigest()


class Role(models.TextChoices):
    """What a person is in a project."""

    REQUESTER = "requester", "Requester"
    APPROVER = "approver", "Approver"
    OPERATOR = "operator", "Operator"
    AUDITOR = "auditor", "Auditor"
    ADMIN = "admin", "Admin"


class Project(models.Model):
    """A tenant: the people, machines and quotas that belong together."""

    name = models.CharField(max_length=64, unique=True)

    objects = RestrictedQuerySet.as_manager()

    def __str__(self) -> str:
        return self.name


class Membership(models.Model):
    """One person's role in one project, or in every project when `project` is empty."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="memberships")
    project = models.ForeignKey(
        Project, on_delete=models.CASCADE, null=True, blank=True, related_name="memberships"
    )
    role = models.CharField(max_length=16, choices=Role.choices)

    objects = RestrictedQuerySet.as_manager()

    class Meta:
        constraints = [
            # Two, because to SQLite every NULL is another: `nulls_distinct` does nothing there.
            models.UniqueConstraint(
                fields=["user", "project", "role"],
                condition=models.Q(project__isnull=False),
                name="one_role_once_a_project",
            ),
            models.UniqueConstraint(
                fields=["user", "role"],
                condition=models.Q(project__isnull=True),
                name="one_role_once_everywhere",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.user} is {self.role} of {self.project or 'every project'}"


class InvitationQuerySet(RestrictedQuerySet):
    """Invitations a person may see, and those still good."""

    def open(self) -> "InvitationQuerySet":
        """Keep those that can still be accepted, by the database's clock."""
        return self.filter(accepted_at=None, revoked_at=None, expires_at__gt=Now())


class Invitation(models.Model):
    """A link that makes one person with one role. Only the hash of its secret is kept."""

    project = models.ForeignKey(
        Project, on_delete=models.CASCADE, null=True, blank=True, related_name="invitations"
    )
    role = models.CharField(max_length=16, choices=Role.choices)
    # Empty: the link is handed over by other means than mail.
    email = models.EmailField(blank=True)
    token_hash = models.CharField(max_length=64, unique=True)
    invited_by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    accepted_at = models.DateTimeField(null=True, blank=True)
    accepted_by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, blank=True, related_name="+")
    revoked_at = models.DateTimeField(null=True, blank=True)

    objects = InvitationQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at", "-pk"]

    def __str__(self) -> str:
        return self.email or f"link {self.pk}"


class Notice(models.Model):
    """Something that one person should know; `portal.accounts.notices` writes them.

    Mail goes out of these rows: due -> sending -> sent | failed, or back to due for another try.
    """

    class Mail(models.TextChoices):
        NONE = "none", "No mail"
        DUE = "due", "To be sent"
        SENDING = "sending", "Being sent"
        SENT = "sent", "Sent"
        FAILED = "failed", "Given up"

    person = models.ForeignKey(User, on_delete=models.CASCADE, related_name="notices")
    kind = models.CharField(max_length=32)
    #: One line; also the subject of the mail.
    text = models.CharField(max_length=200)
    detail = models.TextField(blank=True)
    #: A path of this portal.
    link = models.CharField(max_length=200, blank=True)
    #: What it is about, such as `operations.operation:12`, so that it can be taken back when it is settled.
    about = models.CharField(max_length=64, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    read_at = models.DateTimeField(null=True)
    mail = models.CharField(max_length=8, choices=Mail.choices, default=Mail.NONE)
    #: Due: not before. Sending, sent, failed: since.
    mail_at = models.DateTimeField(null=True)
    mail_tries = models.PositiveSmallIntegerField(default=0)
    mail_error = models.CharField(max_length=500, blank=True)

    class Meta:
        indexes = [
            models.Index(fields=["person", "-id"], name="notices_of_a_person"),
            models.Index(fields=["person"], condition=models.Q(read_at=None), name="notices_unread"),
            models.Index(fields=["about"], condition=models.Q(read_at=None), name="notices_about_what"),
            models.Index(
                fields=["mail_at"], condition=models.Q(mail__in=["due", "sending"]), name="notices_to_mail"
            ),
        ]

    def __str__(self) -> str:
        return self.text


class MailChoice(models.Model):
    """Whether a person wants mails of one kind of notice; without a row the kind's own default holds."""

    person = models.ForeignKey(User, on_delete=models.CASCADE, related_name="mail_choices")
    kind = models.CharField(max_length=32)
    wanted = models.BooleanField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["person", "kind"], name="one_mail_choice_a_kind"),
        ]

    def __str__(self) -> str:
        return f"{self.person} {'wants' if self.wanted else 'wants no'} mails of {self.kind}"


class SshPublicKey(models.Model):
    """A public key that a person keeps for their machines; `portal.accounts.public_keys` writes them."""

    person = models.ForeignKey(User, on_delete=models.CASCADE, related_name="ssh_keys")
    name = models.CharField(max_length=64)
    #: As in authorized_keys: kind, base64, comment.
    line = models.TextField()
    fingerprint = models.CharField(max_length=64)
    #: Whether the form for a machine has it ticked: it was chosen the last time, or is new.
    chosen = models.BooleanField(default=True)
    added_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["person", "fingerprint"], name="one_key_once_a_person"),
        ]

    def __str__(self) -> str:
        return self.name
