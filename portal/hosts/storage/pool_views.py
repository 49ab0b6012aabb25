"""Pages that add pools to hosts, take them over, remove and give them back, for admins.

Operators start and stop them.
"""

from collections.abc import Callable
from typing import Any

from django import forms
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_http_methods, require_POST

from portal.core.errors import Denied
from portal.core.web.forms import ConfirmForm, ExplainedRadio
from portal.core.web.htmx import attempt, denied_at
from portal.drivers.types import PoolKind
from portal.hosts.models import FoundPool, Host, PoolAttachment
from portal.hosts.storage import pools, taking_over
from portal.hosts.storage.pool_words import KINDS, label_of
from portal.operations.models import Operation


class NewPool(forms.Form):
    """A pool: what its kind needs, and nothing else; the service says what is missing, or too much."""

    name = forms.CharField(label=_("Name"), max_length=64)
    kind = forms.ChoiceField(label=_("Kind"), widget=ExplainedRadio)
    path = forms.CharField(
        label=_("Folder on the host"),
        max_length=255,
        required=False,
        help_text=_("Such as /var/lib/gatehouse-2. Only of what is, or is mounted at, a folder."),
    )
    server = forms.CharField(
        label=_("Server"),
        max_length=255,
        required=False,
        help_text=_(
            "Of NFS, iSCSI and Ceph (a monitor): its name or address, and :port unless it is the usual one."
        ),
    )
    source = forms.CharField(
        label=_("What it lies on"),
        max_length=255,
        required=False,
        help_text=_(
            "A device (/dev/vdb1), the folder on an NFS server (/srv/disks), a volume group (vg0), a target "
            "(iqn.2026-01.org.example:disks), or a pool of Ceph (disks) or ZFS (tank/disks). Empty for a "
            "folder of the host."
        ),
    )
    user = forms.CharField(
        label=_("User"),
        max_length=127,
        required=False,
        help_text=_("Only of iSCSI (CHAP) and Ceph, where they ask for a password."),
    )
    secret = forms.CharField(
        label=_("Secret of the host"),
        max_length=64,
        required=False,
        help_text=_(
            "The UUID of the secret that holds the password, which the host's administrator made by virsh "
            "secret-define and secret-set-value. The portal never has the password."
        ),
    )

    def __init__(self, *args: object, host: Host, **more: object) -> None:
        super().__init__(*args, **more)  # type: ignore[arg-type]
        kinds = pools.kinds_of(host)
        field = self.fields["kind"]
        field.choices = [(kind.value, KINDS[kind][0]) for kind in kinds]  # type: ignore[attr-defined]
        field.widget.explained = {kind.value: KINDS[kind][1] for kind in kinds}  # type: ignore[attr-defined]
        self.initial.setdefault("kind", PoolKind.DIR.value)


@require_http_methods(["GET", "HEAD", "POST"])
def add(request: HttpRequest, pk: int) -> HttpResponse:
    """Add a pool to a host."""
    host = get_object_or_404(Host.objects.restrict(request.user, "administer"), pk=pk)
    form = NewPool(request.POST if request.method == "POST" else None, host=host)
    if form.is_valid():
        with denied_at(form):
            begun = pools.add(actor=request.user, host=host, **form.cleaned_data)
            return redirect("operations:detail", begun.pk)
    status = 422 if form.errors else 200
    return render(request, "hosts/pool_add.html", {"form": form, "host": host}, status=status)


def _place(request: HttpRequest, pk: int, action: str = "administer") -> PoolAttachment:
    hosts = Host.objects.restrict(request.user, action)
    found = PoolAttachment.objects.filter(host__in=hosts).select_related("pool", "host")
    return get_object_or_404(found, pk=pk)


@require_POST
def remove(request: HttpRequest, pk: int) -> HttpResponse:
    """Remove a pool."""
    place = _place(request, pk)
    form = ConfirmForm(request.POST, name=place.pool.name)
    if form.is_valid():
        with denied_at(form):
            begun = pools.remove(actor=request.user, pool=place, **form.cleaned_data)
            return redirect("operations:detail", begun.pk)
    context = {"pool": place, "confirm": form, "denied": pools.why_not_removed(place)}
    return render(request, "hosts/pool_remove.html", context, status=422)


@require_POST
def give_back(request: HttpRequest, pk: int) -> HttpResponse:
    """Forget a pool that was taken over."""
    place = _place(request, pk)
    form = ConfirmForm(request.POST, name=place.pool.name)
    if form.is_valid():
        with denied_at(form):
            taking_over.give_back(actor=request.user, pool=place, **form.cleaned_data)
            return redirect("hosts:detail", place.host_id)
    context = {"pool": place, "confirm": form, "denied": taking_over.why_not_given_back(place)}
    return render(request, "hosts/pool_remove.html", context, status=422)


@require_http_methods(["GET", "HEAD", "POST"])
def take_over(request: HttpRequest, pk: int) -> HttpResponse:
    """Show what a pool is that somebody else made, and what taking it over means; take it over."""
    every = FoundPool.objects.restrict(request.user, "administer").select_related("host")
    found = get_object_or_404(every, pk=pk)
    denied = taking_over.why_not(found)
    if request.method == "POST":
        try:
            seen = request.POST.get("seen", "")
            begun = taking_over.take_over(actor=request.user, found=found, seen=seen)
            return redirect("operations:detail", begun.pk)
        except Denied as refused:
            denied = refused.reason
    context = {
        "found": found,
        "kind": label_of(found.observed_kind),
        "seen": taking_over.seen_as(found),
        "denied": denied,
    }
    status = 422 if request.method == "POST" else 200
    return render(request, "hosts/pool_take_over.html", context, status=status)


def _run(request: HttpRequest, pk: int, act: Callable[..., Operation], **more: Any) -> HttpResponse:
    place = _place(request, pk, "operate")
    with attempt(request):
        return redirect("operations:detail", act(actor=request.user, pool=place, **more).pk)
    return redirect("hosts:pool", pk)


@require_POST
def start(request: HttpRequest, pk: int) -> HttpResponse:
    """Start a pool."""
    return _run(request, pk, pools.start)


@require_POST
def stop(request: HttpRequest, pk: int) -> HttpResponse:
    """Stop a pool."""
    return _run(request, pk, pools.stop)


@require_POST
def autostart(request: HttpRequest, pk: int) -> HttpResponse:
    """Let a pool start with its host, or not."""
    return _run(request, pk, pools.set_autostart, on=request.POST.get("on") == "1")
