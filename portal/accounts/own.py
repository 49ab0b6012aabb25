"""Pages a person has for themselves: the profile, their SSH keys, the theme, an invitation to accept."""

from django.contrib import messages
from django.contrib.auth import login
from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST

from portal.accounts import public_keys, services
from portal.accounts.forms import AcceptForm, ProfileForm, PublicKeyForm, ThemeForm
from portal.accounts.models import User
from portal.core.web.htmx import attempt, denied_at


@sensitive_post_parameters("password")
@require_http_methods(["GET", "HEAD", "POST"])
def profile(request: HttpRequest) -> HttpResponse:
    """Show and change one's own name, mail and preferences."""
    # A copy: the form writes what was typed into its instance, and the frame shows the person as stored.
    own = User.objects.get(username=request.user.get_username())
    form = ProfileForm(request.POST or None, instance=own)
    if request.method == "POST" and form.is_valid():
        with denied_at(form):
            services.update_profile(actor=own, **form.cleaned_data)
            messages.success(request, _("Saved."))
            return redirect("accounts:profile")
    memberships = own.memberships.select_related("project").order_by("project__name", "role")
    context = {"form": form, "memberships": memberships}
    return render(request, "accounts/profile.html", context, status=422 if form.errors else 200)


@require_http_methods(["GET", "HEAD", "POST"])
def ssh_keys(request: HttpRequest) -> HttpResponse:
    """List one's own SSH public keys and keep another."""
    form = PublicKeyForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        with denied_at(form):
            key = public_keys.add(actor=request.user, **form.cleaned_data)
            messages.success(request, _("%(name)s is kept.") % {"name": key.name})
            return redirect("accounts:ssh_keys")
    context = {"form": form, "keys": public_keys.of(request.user)}
    return render(request, "accounts/ssh_keys.html", context, status=422 if form.errors else 200)


@require_POST
def ssh_key_remove(request: HttpRequest, pk: int) -> HttpResponse:
    """Forget one of one's own SSH public keys."""
    key = get_object_or_404(public_keys.of(request.user), pk=pk)
    done = _("%(name)s is removed here. Machines that have it keep it.") % {"name": key.name}
    with attempt(request, done):
        public_keys.remove(actor=request.user, key=key)
    return redirect("accounts:ssh_keys")


@require_POST
def theme(request: HttpRequest) -> HttpResponse:
    """Remember the switch in the menu; the page has changed its look already."""
    form = ThemeForm(request.POST)
    if not form.is_valid():
        return HttpResponse(status=422)
    services.set_theme(actor=request.user, **form.cleaned_data)  # type: ignore[arg-type]
    return HttpResponse(status=204)


@never_cache
@login_not_required
@sensitive_post_parameters("password")
@require_http_methods(["GET", "HEAD", "POST"])
def accept(request: HttpRequest, token: str) -> HttpResponse:
    """Make an account of an invitation and sign the new person in."""
    invitation = services.open_invitation(token)
    if invitation is None or request.user.is_authenticated:
        signed_in = {"signed_in": request.user.is_authenticated}
        return render(request, "accounts/accept_closed.html", signed_in, status=410)
    form = AcceptForm(request.POST or None, initial={"email": invitation.email})
    if request.method == "POST" and form.is_valid():
        with denied_at(form):
            person = services.accept_invitation(token=token, **form.cleaned_data)
            login(request, person, backend="allauth.account.auth_backends.AuthenticationBackend")
            messages.success(request, _("Welcome. This is your account now."))
            return redirect("first_page")
    context = {"form": form, "invitation": invitation}
    return render(request, "accounts/accept.html", context, status=422 if form.errors else 200)
