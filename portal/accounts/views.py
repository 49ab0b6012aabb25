"""Pages of people, projects and invitations, for admins. One's own pages are in `own`."""

from typing import Any

from django.core.paginator import Paginator
from django.db.models import Count, Q
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from portal.accounts import services
from portal.accounts.forms import InviteForm, PlaceRoleForm, ProjectForm, ProjectInviteForm, RoleForm
from portal.accounts.models import Invitation, Membership, Project, User
from portal.core.web.htmx import attempt, denied_at, render_page
from portal.core.web.links import public_link
from portal.core.web.lists import ordering, search_of
from portal.core.web.slots import pieces

PAGE_SIZE = 50
PEOPLE_ORDER = {
    "name": ["username"],
    "mail": ["email", "username"],
    "seen": ["last_login", "username"],
    "state": ["is_active", "username"],
}


def _administrators_of_all_only(request: HttpRequest) -> None:
    # People belong to no project; for anybody else the pages about them are not there.
    if not services.may_administer(request.user, None):
        raise Http404


def _link_for(token: str) -> str:
    return public_link(reverse("accounts:accept", args=[token]))


# People


@require_safe
def people(request: HttpRequest) -> HttpResponse:
    """List people, searched, sorted and paginated by the server."""
    _administrators_of_all_only(request)
    search = search_of(request)
    found = services.people_for(request.user).prefetch_related("memberships__project")
    if search:
        found = found.filter(
            Q(username__icontains=search)
            | Q(email__icontains=search)
            | Q(first_name__icontains=search)
            | Q(last_name__icontains=search)
        )
    sort, columns = ordering(request, PEOPLE_ORDER, default="name")
    invitations = Invitation.objects.restrict(request.user, "administer").open()
    page = Paginator(found.order_by(*columns), PAGE_SIZE).get_page(request.GET.get("page"))
    context = {
        "page": page,
        "search": search,
        "sort": sort,
        "invitations": invitations.select_related("project"),
    }
    return render_page(request, "accounts/people.html", context, partial="accounts/people_table.html")


@require_http_methods(["GET", "HEAD", "POST"])
def invite(request: HttpRequest) -> HttpResponse:
    """Invite somebody to any project that the actor administers; show the link once."""
    _administrators_of_all_only(request)
    form = InviteForm(request.POST or None, actor=request.user)
    if request.method == "POST" and form.is_valid():
        with denied_at(form):
            invited = services.invite(actor=request.user, link_for=_link_for, **form.cleaned_data)
            return render(request, "accounts/invited.html", {"invited": invited})
    return render(request, "accounts/invite.html", {"form": form}, status=422 if form.errors else 200)


@require_safe
def person(request: HttpRequest, pk: int) -> HttpResponse:
    """Show one person's account and roles."""
    someone = get_object_or_404(services.people_for(request.user), pk=pk)
    return _person_page(request, someone, PlaceRoleForm(actor=request.user))


def _person_page(request: HttpRequest, someone: User, form: PlaceRoleForm) -> HttpResponse:
    context = {
        "person": someone,
        "memberships": someone.memberships.select_related("project").order_by("project__name", "role"),
        "form": form,
        "pieces": pieces("accounts.person", request, someone),
    }
    return render(request, "accounts/person.html", context, status=422 if form.errors else 200)


@require_POST
def person_active(request: HttpRequest, pk: int) -> HttpResponse:
    """Let somebody in or keep them out, as the button says."""
    someone = get_object_or_404(services.people_for(request.user), pk=pk)
    active = request.POST.get("active") == "1"
    kept_out = _("%(person)s is deactivated and signed out everywhere.")
    done = _("%(person)s may sign in again.") if active else kept_out
    with attempt(request, done % {"person": someone}):
        services.set_active(actor=request.user, person=someone, active=active)
    return redirect("accounts:person", pk)


@require_POST
def person_grant(request: HttpRequest, pk: int) -> HttpResponse:
    """Give somebody a role in a project, or in all."""
    someone = get_object_or_404(services.people_for(request.user), pk=pk)
    form = PlaceRoleForm(request.POST, actor=request.user)
    if form.is_valid():
        with denied_at(form):
            services.grant_role(actor=request.user, person=someone, **form.cleaned_data)
            return redirect("accounts:person", pk)
    return _person_page(request, someone, form)


@require_POST
def role_revoke(request: HttpRequest, pk: int) -> HttpResponse:
    """Take one role away, and return to the page the button stood on."""
    membership = get_object_or_404(
        Membership.objects.restrict(request.user, "administer").select_related("user", "project"), pk=pk
    )
    with attempt(request, _("The role was taken away.")):
        services.revoke_role(actor=request.user, membership=membership)
    return _back(request, membership.project, membership.user)


def _back(request: HttpRequest, project: Project | None, person: User | None = None) -> HttpResponse:
    """Return to the page the button stood on, unless the change took it from the actor's sight."""
    if project and request.POST.get("back") == "project" and services.may_administer(request.user, project):
        return redirect("accounts:project", project.pk)
    if not services.may_administer(request.user, None):
        return redirect("first_page")
    return redirect("accounts:person", person.pk) if person else redirect("accounts:people")


@require_POST
def invitation_revoke(request: HttpRequest, pk: int) -> HttpResponse:
    """Take an invitation back, and return to the page the button stood on."""
    invitation = get_object_or_404(
        Invitation.objects.restrict(request.user, "administer").select_related("project"), pk=pk
    )
    with attempt(request, _("The invitation was taken back; its link is useless now.")):
        services.revoke_invitation(actor=request.user, invitation=invitation)
    return _back(request, invitation.project)


# Projects


@require_http_methods(["GET", "HEAD", "POST"])
def projects(request: HttpRequest) -> HttpResponse:
    """List the projects that the actor administers; make a new one."""
    form = ProjectForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        with denied_at(form):
            project = services.create_project(actor=request.user, **form.cleaned_data)
            return redirect("accounts:project", project.pk)
    found = Project.objects.restrict(request.user, "administer").order_by("name")
    search = search_of(request)
    if search:
        found = found.filter(name__icontains=search)
    found = found.annotate(members=Count("memberships__user", distinct=True))
    context = {
        "page": Paginator(found, PAGE_SIZE).get_page(request.GET.get("page")),
        "search": search,
        "form": form,
        "may_create": services.may_administer(request.user, None),
    }
    status = 422 if form.errors else 200
    return render_page(
        request, "accounts/projects.html", context, partial="accounts/projects_table.html", status=status
    )


@require_safe
def project(request: HttpRequest, pk: int) -> HttpResponse:
    """Show a project: its members, invitations, and what other rooms say about it."""
    return _project_page(request, _administered(request, pk))


def _administered(request: HttpRequest, pk: int) -> Project:
    found: Project = get_object_or_404(Project.objects.restrict(request.user, "administer"), pk=pk)
    return found


def _project_page(request: HttpRequest, found: Project, **forms: Any) -> HttpResponse:
    """Render the page of a project, with the forms that were refused in the place of empty ones."""
    members = Membership.objects.filter(project=found).select_related("user")
    members = members.order_by("user__username", "role")
    context: dict[str, Any] = {
        "project": found,
        "page": Paginator(members, PAGE_SIZE).get_page(request.GET.get("page")),
        "invitations": Invitation.objects.open().filter(project=found),
        "role_form": RoleForm(),
        "invite_form": ProjectInviteForm(prefix="invite"),
        "rename_form": ProjectForm(initial={"name": found.name}, prefix="rename"),
        "pieces": pieces("accounts.project", request, found),
    }
    refused = any(form.errors for form in forms.values())
    return render(request, "accounts/project.html", context | forms, status=422 if refused else 200)


@require_POST
def project_rename(request: HttpRequest, pk: int) -> HttpResponse:
    """Give a project another name."""
    found = _administered(request, pk)
    form = ProjectForm(request.POST, prefix="rename")
    if form.is_valid():
        with denied_at(form):
            services.rename_project(actor=request.user, project=found, **form.cleaned_data)
            return redirect("accounts:project", pk)
    return _project_page(request, found, rename_form=form)


@require_POST
def project_grant(request: HttpRequest, pk: int) -> HttpResponse:
    """Give somebody who is here already a role in the project."""
    found = _administered(request, pk)
    form = RoleForm(request.POST)
    if form.is_valid():
        with denied_at(form):
            services.grant_role(actor=request.user, project=found, **form.cleaned_data)
            return redirect("accounts:project", pk)
    return _project_page(request, found, role_form=form)


@require_POST
def project_invite(request: HttpRequest, pk: int) -> HttpResponse:
    """Invite somebody new to the project; show the link once."""
    found = _administered(request, pk)
    form = ProjectInviteForm(request.POST, prefix="invite")
    if form.is_valid():
        with denied_at(form):
            invited = services.invite(
                actor=request.user, project=found, link_for=_link_for, **form.cleaned_data
            )
            return render(request, "accounts/invited.html", {"invited": invited})
    return _project_page(request, found, invite_form=form)
