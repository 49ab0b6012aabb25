"""Pages that add pools to hosts and remove them, for admins; start and stop them, for operators."""

from collections.abc import Callable
from typing import Any

from django import forms
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_http_methods, require_POST

from portal.core.web.forms import ConfirmForm, ExplainedRadio
from portal.core.web.htmx import attempt, denied_at
from portal.drivers.types import PoolKind
from portal.hosts.models import Host, PoolAttachment
from portal.hosts.storage import pools
from portal.operations.models import Operation

_WORDS = {
    PoolKind.DIR: (
        _("A folder of the host"),
        _("It is made if it is not there; one that is there gets the permissions 0711, its files stay."),
    ),
    PoolKind.FS: (
        _("A device with a file system"),
        _("The host mounts it at the folder. It is never formatted: it must have a file system."),
    ),
    PoolKind.NETFS: (
        _("A folder of a server (NFS)"),
        _(
            "The host mounts it at the folder. Without the server, machines with disks there stand still. "
            "Give each host a folder of its own on the server: a host does not know which disks the machines "
            "of another one have. The portal knows a server again by its name alone."
        ),
    ),
}


class NewPool(forms.Form):
    """A pool of files."""

    name = forms.CharField(label=_("Name"), max_length=64)
    kind = forms.ChoiceField(label=_("Kind"), widget=ExplainedRadio)
    path = forms.CharField(
        label=_("Folder on the host"), max_length=255, help_text=_("Such as /var/lib/gatehouse-2.")
    )
    server = forms.CharField(
        label=_("Server"), max_length=255, required=False, help_text=_("Only of a folder of a server.")
    )
    source = forms.CharField(
        label=_("Device, or folder on the server"),
        max_length=255,
        required=False,
        help_text=_("Such as /dev/vdb1 or /srv/disks; empty for a folder of the host."),
    )

    def __init__(self, *args: object, host: Host, **more: object) -> None:
        super().__init__(*args, **more)  # type: ignore[arg-type]
        kinds = pools.kinds_of(host)
        field = self.fields["kind"]
        field.choices = [(kind.value, _WORDS[kind][0]) for kind in kinds]  # type: ignore[attr-defined]
        field.widget.explained = {kind.value: _WORDS[kind][1] for kind in kinds}  # type: ignore[attr-defined]
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
