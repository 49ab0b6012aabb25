"""Pages of policies, for who administers every project, and of one's own deputies."""

from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from portal.accounts.backends import may
from portal.core.web.forms import ConfirmForm
from portal.core.web.htmx import attempt, denied_at
from portal.operations.models import Delegation, Policy
from portal.operations.policies import delegations, services, trying, wording
from portal.operations.policies.forms import FIELDS, DelegationForm, PolicyForm
from portal.operations.policies.store import with_parts


def _admins_of_all_only(request: HttpRequest) -> None:
    # Policies are about every project; for anybody else their pages are not there.
    if not may(request.user, "administer", None):
        raise Http404


def _policies(request: HttpRequest) -> Any:
    _admins_of_all_only(request)
    return Policy.objects.restrict(request.user, "administer")


@require_safe
def policies(request: HttpRequest) -> HttpResponse:
    """List the policies in the order in which they are asked, with what each would have meant."""
    found = list(with_parts(_policies(request).order_by("position", "pk")))
    counts, looked = trying.speaks_for()
    rows = [
        {
            "policy": policy,
            "conditions": wording.conditions(policy),
            "outcome": wording.outcome(policy),
            "spoken": counts.get(policy.pk, 0),
            "first": number == 0,
            "last": number == len(found) - 1,
        }
        for number, policy in enumerate(found)
    ]
    context = {"rows": rows, "unspoken": counts.get(None, 0), "looked": looked}
    return render(request, "operations/policies.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
def policy_add(request: HttpRequest) -> HttpResponse:
    """Add a policy, or try it on past requests first."""
    _admins_of_all_only(request)
    return _policy_form(request, None)


@require_http_methods(["GET", "HEAD", "POST"])
def policy(request: HttpRequest, pk: int) -> HttpResponse:
    """Change a policy, or try the change on past requests first."""
    return _policy_form(request, get_object_or_404(_policies(request), pk=pk))


def _policy_form(request: HttpRequest, found: Policy | None) -> HttpResponse:
    form = PolicyForm(request.POST or None, policy=found)
    trial = None
    if request.method == "POST" and form.is_valid():
        if request.POST.get("then") == "try":
            trial = trying.try_out(form.rule(), policy=found)
        elif _save(request, form, found):
            return redirect("operations:policies")
    context = {
        "form": form,
        "policy": found,
        "trial": trial,
        "delete": ConfirmForm(name=found.name) if found else None,
    }
    return render(request, "operations/policy.html", context, status=422 if form.errors else 200)


def _save(request: HttpRequest, form: PolicyForm, found: Policy | None) -> bool:
    """Store what was typed; a refusal is shown at its field."""
    with denied_at(form, FIELDS):
        if found is None:
            services.add_policy(actor=request.user, rule=form.rule())
        else:
            services.change_policy(actor=request.user, policy=found, rule=form.rule())
    return not form.errors


@require_POST
def policy_move(request: HttpRequest, pk: int) -> HttpResponse:
    """Let a policy be asked one place earlier or later."""
    found = get_object_or_404(_policies(request), pk=pk)
    with attempt(request, _("The order is changed.")):
        services.move_policy(actor=request.user, policy=found, up=request.POST.get("to") == "up")
    return redirect("operations:policies")


@require_POST
def policy_switch(request: HttpRequest, pk: int) -> HttpResponse:
    """Switch a policy on or off."""
    found = get_object_or_404(_policies(request), pk=pk)
    enabled = request.POST.get("enabled") == "1"
    words = _("%(policy)s is on.") if enabled else _("%(policy)s is off; it is not asked any more.")
    with attempt(request, words % {"policy": found}):
        services.switch_policy(actor=request.user, policy=found, enabled=enabled)
    return redirect("operations:policies")


@require_POST
def policy_delete(request: HttpRequest, pk: int) -> HttpResponse:
    """Delete a policy whose name was typed."""
    found = get_object_or_404(_policies(request), pk=pk)
    with attempt(request, _("The policy is deleted. Requests keep what it demanded of them.")):
        services.delete_policy(
            actor=request.user, policy=found, confirm_name=request.POST.get("confirm_name", "")
        )
    kept = _policies(request).filter(pk=pk).exists()
    return redirect("operations:policy", pk) if kept else redirect("operations:policies")


@require_http_methods(["GET", "HEAD", "POST"])
def deputies(request: HttpRequest) -> HttpResponse:
    """Show who stands in for whom, and name a deputy."""
    nothing = delegations.nothing_to_hand_over(request.user)
    form = DelegationForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        with denied_at(form):
            delegations.delegate(actor=request.user, **form.cleaned_data)
            return redirect("operations:deputies")
    found = list(delegations.open_delegations(request.user))
    context = {
        "form": form,
        "nothing": nothing,
        "mine": [item for item in found if item.person_id == request.user.pk],
        "for_others": [item for item in found if item.deputy_id == request.user.pk],
        "of_everybody": [
            item for item in found if request.user.pk not in {item.person_id, item.deputy_id}
        ],
    }
    return render(request, "operations/deputies.html", context, status=422 if form.errors else 200)


@require_POST
def deputy_end(request: HttpRequest, pk: int) -> HttpResponse:
    """End a delegation now."""
    found = get_object_or_404(
        Delegation.objects.restrict(request.user, "view").select_related("person", "deputy"), pk=pk
    )
    names = {"deputy": found.deputy, "person": found.person}
    with attempt(request, _("%(deputy)s decides no more for %(person)s.") % names):
        delegations.end_delegation(actor=request.user, delegation=found)
    return redirect("operations:deputies")
