"""Every change of people, roles, projects and invitations.

Not for: quotas, which the ledger keeps, and passwords, which allauth changes.
"""

import hashlib
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from smtplib import SMTPException
from typing import Any

from django.core.mail import send_mail
from django.db import IntegrityError, models, transaction
from django.template.loader import render_to_string
from django.utils import timezone
from django.utils.translation import gettext as _

from portal.accounts.backends import may
from portal.accounts.models import Invitation, Membership, Project, Role, User
from portal.audit import services as audit
from portal.core.errors import Denied

logger = logging.getLogger(__name__)


def people_for(actor: Any) -> models.QuerySet[User]:
    """Return everybody for who administers every project, nobody for anybody else: people have no project."""
    everybody = User.objects.order_by("username")
    return everybody if may_administer(actor, None) else everybody.none()


def may_administer(actor: Any, project: Project | None) -> bool:
    """Tell whether `actor` administers `project`, or every project when it is None."""
    return may(actor, "administer", project)


def _check(actor: Any, project: Project | None) -> None:
    if may_administer(actor, project):
        return
    if project is None:
        raise Denied(_("Only an admin of every project may do this."))
    raise Denied(_("Only an admin of %(project)s may do this.") % {"project": project})


def _place(project: Project | None) -> str | None:
    return project.name if project else None


# Projects


@transaction.atomic
def create_project(*, actor: Any, name: str) -> Project:
    """Make a project. Raises Denied, also for a name that is taken."""
    _check(actor, None)
    if Project.objects.filter(name__iexact=name).exists():
        raise Denied(_("A project of this name exists already."))
    project = Project.objects.create(name=name)
    audit.record(actor=actor, verb="project.create", target=project, after={"name": name})
    return project


@transaction.atomic
def rename_project(*, actor: Any, project: Project, name: str) -> Project:
    """Give `project` another name. Raises Denied, also for a name that is taken. Idempotent."""
    _check(actor, project)
    before = Project.objects.select_for_update().get(pk=project.pk).name
    if name == before:
        return project
    if Project.objects.filter(name__iexact=name).exclude(pk=project.pk).exists():
        raise Denied(_("A project of this name exists already."))
    project.name = name
    project.save(update_fields=["name"])
    audit.record(
        actor=actor, verb="project.rename", target=project, before={"name": before}, after={"name": name}
    )
    return project


# Roles


@transaction.atomic
def grant_role(*, actor: Any, person: User, project: Project | None, role: str) -> Membership:
    """Make `person` a `role` of `project`, or of every project when it is None. Idempotent. Raises Denied."""
    _check(actor, project)
    if not person.is_active:
        raise Denied(_("%(person)s is deactivated.") % {"person": person})
    membership, made = Membership.objects.get_or_create(user=person, project=project, role=role)
    if made:
        audit.record(
            actor=actor, verb="role.grant", target=person, after={"role": role, "project": _place(project)}
        )
    return membership


@transaction.atomic
def revoke_role(*, actor: Any, membership: Membership) -> None:
    """Take a role away. Raises Denied where it would leave the actor, or the portal, without an admin."""
    _check(actor, membership.project)
    _keep_an_admin(membership)
    admin_elsewhere = Membership.objects.filter(user=actor, role=Role.ADMIN).exclude(pk=membership.pk)
    if membership.user == actor and membership.role == Role.ADMIN and not admin_elsewhere.exists():
        raise Denied(_("This is your own last admin role. Ask another admin to take it away."))
    deleted, _rows = Membership.objects.filter(pk=membership.pk).delete()
    if deleted:
        before = {"role": membership.role, "project": _place(membership.project)}
        audit.record(actor=actor, verb="role.revoke", target=membership.user, before=before)


def _keep_an_admin(membership: Membership) -> None:
    """Raise Denied when `membership` is the last active admin role of every project."""
    if membership.role != Role.ADMIN or membership.project is not None:
        return
    everywhere = Membership.objects.select_for_update().filter(role=Role.ADMIN, project=None)
    if not [admin for admin in everywhere.filter(user__is_active=True) if admin.pk != membership.pk]:
        raise Denied(_("Somebody must remain who is admin of every project."))


# People


@transaction.atomic
def set_active(*, actor: Any, person: User, active: bool) -> User:
    """Let `person` in, or keep them out and end their sessions. Idempotent. Raises Denied."""
    _check(actor, None)
    if person == actor:
        raise Denied(_("You cannot deactivate yourself."))
    person = User.objects.select_for_update().get(pk=person.pk)
    if person.is_active == active:
        return person
    person.is_active = active
    # Sessions from before must not come back to life with the account.
    person.session_stamp = secrets.token_hex(16)
    person.save(update_fields=["is_active", "session_stamp"])
    verb = "person.activate" if active else "person.deactivate"
    audit.record(
        actor=actor, verb=verb, target=person, before={"active": not active}, after={"active": active}
    )
    return person


@transaction.atomic
def update_profile(
    *, actor: User, first_name: str, last_name: str, email: str, theme: str, time_zone: str
) -> User:
    """Change the actor's own name, mail and preferences. Raises Denied for a mail that another has."""
    names = {"first_name": first_name, "last_name": last_name}
    fresh = names | {"email": email, "theme": theme, "time_zone": time_zone}
    if email and User.objects.filter(email__iexact=email).exclude(pk=actor.pk).exists():
        raise Denied(_("Another account has this mail address."))
    person = User.objects.select_for_update().get(pk=actor.pk)
    before = {field: getattr(person, field) for field in fresh if getattr(person, field) != fresh[field]}
    if not before:
        return person
    for field in before:
        setattr(person, field, fresh[field])
    person.save(update_fields=list(before))
    after = {field: fresh[field] for field in before}
    audit.record(actor=actor, verb="person.profile", target=person, before=before, after=after)
    return person


def set_theme(*, actor: User, theme: str) -> None:
    """Remember how pages look for `actor`. Idempotent; a matter of taste, so the trail does not hold it."""
    User.objects.filter(pk=actor.pk).update(theme=theme)


# Invitations


def _hashed(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


@dataclass(frozen=True)
class Invited:
    """An invitation with its link, which is not kept; `mailed` when a mail with it went out."""

    invitation: Invitation
    link: str
    mailed: bool


def invite(
    *,
    actor: Any,
    project: Project | None,
    role: str,
    link_for: Callable[[str], str],
    email: str = "",
    days: int = 7,
) -> Invited:
    """Make an invitation good for `days` days, and mail it when there is an address.

    `link_for` makes the absolute link of a secret. Raises Denied, also for a mail address that has an
    account: such a person is given the role instead.
    """
    with transaction.atomic():
        _check(actor, project)
        if email and User.objects.filter(email__iexact=email).exists():
            raise Denied(_("Somebody with this mail address is here already. Give them the role instead."))
        token = secrets.token_urlsafe(32)
        invitation = Invitation.objects.create(
            project=project,
            role=role,
            email=email,
            token_hash=_hashed(token),
            invited_by=actor,
            expires_at=timezone.now() + timedelta(days=days),
        )
        after = {"role": role, "project": _place(project), "email": email, "days": days}
        audit.record(actor=actor, verb="invitation.create", target=invitation, after=after)
    link = link_for(token)
    return Invited(invitation, link, mailed=bool(email) and _mail(invitation, link))


def _mail(invitation: Invitation, link: str) -> bool:
    """Send the link; False when the mail server would not have it: then it is handed over otherwise."""
    context = {"invitation": invitation, "link": link}
    text = render_to_string("accounts/mail/invitation.txt", context)
    try:
        send_mail(_("You are invited to Gatehouse"), text, None, [invitation.email])
    except (OSError, SMTPException):
        logger.warning("The mail of invitation %s could not be sent", invitation.pk, exc_info=True)
        return False
    return True


@transaction.atomic
def revoke_invitation(*, actor: Any, invitation: Invitation) -> None:
    """Make the link useless. Idempotent. Raises Denied, also when somebody accepted it already."""
    _check(actor, invitation.project)
    if Invitation.objects.filter(pk=invitation.pk).exclude(accepted_at=None).exists():
        raise Denied(_("This invitation was accepted already. Take the role away instead."))
    if Invitation.objects.filter(pk=invitation.pk, revoked_at=None).update(revoked_at=timezone.now()):
        audit.record(actor=actor, verb="invitation.revoke", target=invitation)


def open_invitation(token: str) -> Invitation | None:
    """Return the invitation behind a link while it is good, else None.

    It is good only while who invited could still do so: who was shut out leaves no door open.
    """
    invitation = Invitation.objects.open().filter(token_hash=_hashed(token)).first()
    if invitation and may_administer(invitation.invited_by, invitation.project):
        return invitation
    return None


def accept_invitation(
    *, token: str, username: str, email: str, first_name: str, last_name: str, password: str
) -> User:
    """Make the person an invitation is for, with its role. Once: a second, even racing, is Denied.

    Raises Denied also for a user name or a mail address that is taken. Checks no password rules.
    """
    gone = Denied(_("This invitation was used, taken back or has expired. Ask for a new one."))
    try:
        with transaction.atomic():
            invitation = open_invitation(token)
            if invitation is None:
                raise gone
            if User.objects.filter(email__iexact=email).exists():
                raise Denied(_("Another account has this mail address."))
            person = User.objects.create_user(
                username=username, email=email, password=password, first_name=first_name, last_name=last_name
            )
            # The condition again in the UPDATE: of two who follow one link at once, one wins.
            accepted = Invitation.objects.open().filter(pk=invitation.pk)
            if not accepted.update(accepted_at=timezone.now(), accepted_by=person):
                raise gone
            Membership.objects.create(user=person, project=invitation.project, role=invitation.role)
            after = {"role": invitation.role, "project": _place(invitation.project)}
            audit.record(actor=person, verb="invitation.accept", target=person, after=after)
    except IntegrityError:
        raise Denied(_("This user name is taken.")) from None
    return person
