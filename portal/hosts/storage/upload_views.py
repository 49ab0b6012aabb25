"""Pages on which operators upload volumes, and what a browser sends a file to."""

from django import forms
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_POST, require_safe

from portal.core.web.htmx import attempt
from portal.hosts.images import receiving, services
from portal.hosts.models import Upload, Volume
from portal.operations.models import Operation


class NewUpload(forms.Form):
    """What the volume of a file is called."""

    # The page has other forms with a name.
    prefix = "upload"
    name = forms.CharField(label=gettext_lazy("Name of the volume"), max_length=127)
    raw = forms.BooleanField(
        label=gettext_lazy("It is a raw disk"),
        required=False,
        help_text=gettext_lazy(
            "Taken byte for byte, whatever stands in it, also a disk of data alone. Otherwise the file is "
            "taken for what its first bytes say."
        ),
    )
    sha256 = forms.CharField(
        label=gettext_lazy("SHA-256 of the file"),
        max_length=80,
        required=False,
        help_text=gettext_lazy("When you know it, a file that was damaged on its way is not taken."),
    )


_ROUTES = {name: f"hosts:upload-{name}" for name in ("start", "chunk", "retry", "drop", "choose")}


def _upload(request: HttpRequest, pk: int) -> Upload:
    found = Upload.objects.restrict(request.user, "operate").exclude(pool=None)
    upload: Upload = get_object_or_404(found.select_related("person", "pool__pool", "pool__host"), pk=pk)
    return upload


@require_safe
def upload(request: HttpRequest, pk: int) -> HttpResponse:
    """Show an upload: choose its file, or see what becomes of it."""
    return _page(request, _upload(request, pk))


def _is_unknown(found: Upload) -> bool:
    """Tell whether nothing says what a file is, by what became of it last."""
    last = Operation.objects.filter(subject=found.topic).order_by("-pk").first()
    return last is not None and last.steps.filter(error_code="volume_unknown").exists()


def _page(request: HttpRequest, found: Upload, choice: receiving.DiskForm | None = None) -> HttpResponse:
    made = Volume.objects.restrict(request.user, "operate").filter(pool=found.pool, name=found.wanted["name"])
    context = receiving.shown(request, found, _ROUTES, choice)
    context["volume"] = made.first() if found.state == Upload.State.DONE else None
    context["may_be_raw"] = context["can_retry"] and _is_unknown(found)
    return render(request, "hosts/upload.html", context, status=422 if choice else 200)


@require_POST
def start(request: HttpRequest, pk: int) -> HttpResponse:
    """Take which file follows."""
    return receiving.start(request, _upload(request, pk))


@require_POST
def chunk(request: HttpRequest, pk: int, offset: int) -> HttpResponse:
    """Take a part of the file."""
    return receiving.chunk(request, _upload(request, pk), offset)


@require_POST
def retry(request: HttpRequest, pk: int) -> HttpResponse:
    """Make a volume of the file again, after a failure that was not the file's own."""
    found = _upload(request, pk)
    with attempt(request, _("%(upload)s is being imported again.") % {"upload": found}):
        services.retry(actor=request.user, upload=found, raw="raw" in request.POST)
    return redirect("hosts:upload", pk)


@require_POST
def choose(request: HttpRequest, pk: int) -> HttpResponse:
    """Make a volume of the disk that was chosen out of an OVA."""
    found = _upload(request, pk)
    if refused := receiving.choose(request, found):
        return _page(request, found, refused)
    return redirect("hosts:upload", pk)


@require_POST
def drop(request: HttpRequest, pk: int) -> HttpResponse:
    """Throw an upload away."""
    found = _upload(request, pk)
    with attempt(request, _("The upload of %(upload)s was thrown away.") % {"upload": found}):
        services.give_up(actor=request.user, upload=found)
        return redirect("hosts:pool", found.pool_id)
    return redirect("hosts:upload", pk)
