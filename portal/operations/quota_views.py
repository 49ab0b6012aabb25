"""Pages of quotas: what is taken and left, and for admins what may be taken."""

from typing import Any

from django.contrib import messages
from django.core.paginator import Paginator
from django.db.models import Q
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_safe

from portal.accounts.backends import may
from portal.accounts.models import Project, User
from portal.accounts.services import people_for
from portal.core.web.htmx import attempt, denied_at, render_page
from portal.core.web.lists import search_of
from portal.operations import quotas, scopes, usage
from portal.operations.ledger import word
from portal.operations.models import Counter, DefaultLimit
from portal.operations.quota_forms import QuotaForm

PAGE_SIZE = 25
_METHODS = ["GET", "HEAD", "POST"]


@require_safe
def overview(request: HttpRequest) -> HttpResponse:
    """List what each project takes and may take, for who administers every project."""
    if not may(request.user, "administer", None):
        raise Http404
    search = search_of(request)
    found = Project.objects.restrict(request.user, "administer").order_by("name")
    if search:
        found = found.filter(name__icontains=search)
    page = Paginator(found, PAGE_SIZE).get_page(request.GET.get("page"))
    known = usage.bars([scopes.of_project(project) for project in page])
    context = {
        "page": page,
        "rows": [(project, known[scopes.of_project(project)]) for project in page],
        "search": search,
    }
    return render_page(request, "quotas/overview.html", context, partial="quotas/projects.html")


@require_safe
def own(request: HttpRequest) -> HttpResponse:
    """Show what the person has left, project by project."""
    projects = Project.objects.restrict(request.user, "request").order_by("name")
    page = Paginator(projects, PAGE_SIZE).get_page(request.GET.get("page"))
    shown: list[str] = [scopes.of_person(request.user)]
    for project in page:
        shown += scopes.of_project(project), scopes.of_member(project, request.user)
    known = usage.bars(shown)
    context = {
        "page": page,
        "rows": [
            (
                project,
                known[scopes.of_project(project)],
                known[scopes.of_member(project, request.user)],
            )
            for project in page
        ],
        "everywhere": known[scopes.of_person(request.user)],
    }
    return render(request, "quotas/own.html", context)


@require_http_methods(_METHODS)
def project(request: HttpRequest, pk: int) -> HttpResponse:
    """What a project may take, and how it is parted among its people."""
    found = _project(request, pk)
    context: dict[str, Any] = {"project": found}
    if request.method != "POST":
        context |= _people(request, found)
    return _quota(request, scopes.of_project(found), context)


@require_http_methods(_METHODS)
def each(request: HttpRequest, pk: int) -> HttpResponse:
    """What each person of a project may take who has no limits of their own."""
    found = _project(request, pk)
    return _quota(request, scopes.each_member_of(found), {"project": found})


@require_http_methods(_METHODS)
def member(request: HttpRequest, pk: int, name: str) -> HttpResponse:
    """What one person may take in a project."""
    found = _project(request, pk)
    person = get_object_or_404(_members(found), username=name)
    return _quota(request, scopes.of_member(found, person), {"project": found, "person": person})


@require_http_methods(_METHODS)
def person(request: HttpRequest, pk: int) -> HttpResponse:
    """What one person may take in all projects together."""
    found = get_object_or_404(people_for(request.user), pk=pk)
    return _quota(request, scopes.of_person(found), {"person": found})


@require_http_methods(_METHODS)
def default(request: HttpRequest, name: str) -> HttpResponse:
    """What holds for every project, or every person, without limits of their own."""
    if name not in {scopes.EVERY_PROJECT, scopes.EVERY_PERSON} or not may(request.user, "administer", None):
        raise Http404
    return _quota(request, name, {})


def _project(request: HttpRequest, pk: int) -> Project:
    found: Project = get_object_or_404(Project.objects.restrict(request.user, "administer"), pk=pk)
    return found


def _members(project: Project) -> Any:
    """Return who has a role in `project`, or took something in it, by name."""
    taken = Counter.objects.filter(scope__startswith=f"{scopes.each_member_of(project)}:")
    takers = {scopes.place_of(scope).person for scope in taken.values_list("scope", flat=True).distinct()}
    return User.objects.filter(
        Q(pk__in=takers) | Q(pk__in=project.memberships.values("user"))
    ).order_by("username")


def _people(request: HttpRequest, project: Project) -> dict[str, Any]:
    page = Paginator(_members(project), PAGE_SIZE).get_page(request.GET.get("page"))
    known = usage.bars([scopes.of_member(project, someone) for someone in page])
    return {
        "page": page,
        "people": [(someone, known[scopes.of_member(project, someone)]) for someone in page],
    }


def _quota(request: HttpRequest, scope: str, context: dict[str, Any]) -> HttpResponse:
    """Show the quota of `scope` and, for who may, its form; save what is posted."""
    above = scopes.default_above(scope)
    if request.method == "POST" and "follow" in request.POST and above:
        with attempt(request, _("It follows the default again.")):
            _warn(request, quotas.follow_default(actor=request.user, scope=scope))
        return redirect(request.path)
    form = QuotaForm(request.POST or None, limits=_limits(scope))
    if request.method == "POST" and form.is_valid():
        with denied_at(form):
            _warn(request, quotas.set_quota(actor=request.user, scope=scope, limits=form.limits()))
            messages.success(request, _("Saved."))
            return redirect(request.path)
    bars = [] if scopes.is_default(scope) else usage.bars([scope])[scope]
    known = scopes.titles([scope, above] if above else [scope])
    context = context | {
        "scope": scope,
        "title": known[scope],
        "form": form,
        "bars": bars,
        "why_not": quotas.why_not(request.user, scope),
        "above": known.get(above, ""),
        "follows": bool(above) and not any(bar.counter.own for bar in bars),
    }
    if "people" not in context and scope == f"project:{scopes.place_of(scope).project}":
        context |= _people(request, context["project"])
    return render(request, "quotas/quota.html", context, status=422 if form.errors else 200)


def _limits(scope: str) -> dict[str, int | None]:
    if scopes.is_default(scope):
        said = dict(DefaultLimit.objects.filter(scope=scope).values_list("resource", "limit"))
        return {resource: said.get(resource) for resource in quotas.RESOURCES}
    return {bar.counter.resource: bar.counter.limit for bar in usage.bars([scope])[scope]}


def _warn(request: HttpRequest, beyond: list[Counter]) -> None:
    """Say plainly of which limits more is taken already."""
    for counter in beyond:
        bar = usage.Bar(counter)
        said = _(
            "%(taken)s %(what)s are taken: %(over)s. What is there stays; nothing new fits until it sinks."
        )
        words = {"taken": bar.taken, "what": word(counter.resource), "over": bar.left}
        messages.warning(request, said % words)
