"""Pages of pools and volumes, for those who operate the whole estate."""

from typing import Any

from django import forms
from django.core.paginator import Paginator
from django.db.models import Count
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_POST, require_safe

from portal.accounts.backends import may
from portal.core.web.forms import ConfirmForm, GibField
from portal.core.web.htmx import attempt, denied_at, render_page
from portal.core.web.lists import ordering, search_of
from portal.core.web.streaming import stream
from portal.drivers.types import VolumeVerb, can
from portal.hosts.live import visible
from portal.hosts.models import FoundPool, PoolAttachment, Upload, Volume
from portal.hosts.storage import downloading, moving, pool_words, services, uploading
from portal.hosts.storage.move_form import ToPool
from portal.hosts.storage.pools import source_of, why_not_removed, why_not_stopped
from portal.hosts.storage.room import room_of, with_promised
from portal.hosts.storage.taking_over import why_not_given_back
from portal.hosts.storage.upload_views import NewUpload
from portal.hosts.storage.using import is_orphan, uses_of

PAGE_SIZE = 50
ORDER = {
    "name": ["name", "pk"],
    "capacity": ["observed_capacity", "pk"],
    "allocation": ["observed_allocation", "pk"],
}


class NewVolume(forms.Form):
    """An empty volume."""

    name = forms.CharField(label=_("Name"), max_length=127)
    capacity = GibField(label=_("Size in GiB"))
    form = forms.ChoiceField(label=_("Format"), choices=[("qcow2", "qcow2"), ("raw", "raw")])

    def __init__(self, *args: object, pool: PoolAttachment, **more: object) -> None:
        super().__init__(*args, **more)  # type: ignore[arg-type]
        if not pool.has_folder:
            self.fields["form"].choices = [("raw", "raw")]  # type: ignore[attr-defined]


class Larger(forms.Form):
    """A size to grow to."""

    capacity = GibField(label=_("New size in GiB"))


class Copy(forms.Form):
    """What a copy is called."""

    name = forms.CharField(label=_("Name of the copy"), max_length=127)


def _pools(request: HttpRequest):  # type: ignore[no-untyped-def]  # an annotated queryset
    found = PoolAttachment.objects.filter(host__in=visible(request.user)).select_related("pool", "host")
    return with_promised(found).annotate(count=Count("volumes"))


@require_safe
def pools(request: HttpRequest) -> HttpResponse:
    """List the pools of all hosts."""
    if not may(request.user, "operate", None):
        raise Http404
    found = _pools(request).order_by("host__name", "pk")
    page = Paginator(found, PAGE_SIZE).get_page(request.GET.get("page"))
    others = FoundPool.objects.restrict(request.user, "operate").values("host", "host__name")
    context = {
        "page": page,
        "rows": [(pool, room_of(pool)) for pool in page.object_list],
        "others": others.annotate(count=Count("pk")).order_by("host__name")[:PAGE_SIZE],
    }
    return render(request, "hosts/pools.html", context)


@require_safe
def pool(request: HttpRequest, pk: int) -> HttpResponse:
    """Show a pool and what lies in it."""
    found = get_object_or_404(_pools(request), pk=pk)
    return _pool_page(request, found, NewVolume(pool=found))


def _pool_page(
    request: HttpRequest, pool: PoolAttachment, form: NewVolume, upload: NewUpload | None = None
) -> HttpResponse:
    upload = upload or NewUpload()
    coming = Upload.objects.restrict(request.user, "operate").filter(pool=pool)
    may_administer = may(request.user, "administer", None)
    every = Volume.objects.restrict(request.user, "operate").filter(pool=pool)
    uses = uses_of(list(every.select_related("pool")))
    orphans = {one.pk for one in every if is_orphan(one, uses[one.pk])}
    found, search = every, search_of(request)
    if search:
        found = found.filter(name__icontains=search)
    if only := request.GET.get("only") == "orphans":
        found = found.filter(pk__in=orphans)
    sort, columns = ordering(request, ORDER, default="name")
    page = Paginator(found.order_by(*columns), PAGE_SIZE).get_page(request.GET.get("page"))
    context = {
        "pool": pool,
        "room": room_of(pool),
        "page": page,
        "rows": [(one, uses[one.pk], one.pk in orphans) for one in page.object_list],
        "orphans": len(orphans),
        "only": only,
        "search": search,
        "sort": sort,
        "form": form,
        "upload": upload,
        "uploads": coming.exclude(state=Upload.State.DONE).select_related("person"),
        "may_administer": may_administer,
        "confirm": ConfirmForm(name=pool.pool.name),
        "denied": _why_kept(pool) if may_administer else "",
        "kept_running": why_not_stopped(pool) if pool.observed_active else "",
        "kind": pool_words.label_of(pool.observed_kind),
        "source": source_of(pool),
        "no_making": pool_words.why_not(pool.observed_kind, VolumeVerb.CREATE),
        "no_upload": pool_words.why_no_upload(pool.observed_kind),
    }
    status = 422 if form.errors or upload.errors else 200
    return render_page(request, "hosts/pool.html", context, partial="hosts/volumes.html", status=status)


def _why_kept(pool: PoolAttachment) -> str:
    """Return why an admin can neither remove nor give back a pool now, '' when they can."""
    return (why_not_given_back if pool.taken_over else why_not_removed)(pool)


@require_POST
def refresh(request: HttpRequest, pk: int) -> HttpResponse:
    """Look into a pool now."""
    found = get_object_or_404(_pools(request), pk=pk)
    return redirect("operations:detail", services.look(actor=request.user, pool=found).pk)


@require_POST
def add(request: HttpRequest, pk: int) -> HttpResponse:
    """Make an empty volume."""
    found = get_object_or_404(_pools(request), pk=pk)
    form = NewVolume(request.POST, pool=found)
    if form.is_valid():
        with denied_at(form):
            made = services.create(actor=request.user, pool=found, **form.cleaned_data)
            return redirect("operations:detail", made.pk)
    return _pool_page(request, found, form)


@require_POST
def begin_upload(request: HttpRequest, pk: int) -> HttpResponse:
    """Say what the volume of a file is called; the file is chosen on the page that follows."""
    found, form = get_object_or_404(_pools(request), pk=pk), NewUpload(request.POST)
    if form.is_valid():
        with denied_at(form):
            begun = uploading.begin(actor=request.user, pool=found, **form.cleaned_data)
            return redirect("hosts:upload", begun.pk)
    return _pool_page(request, found, NewVolume(pool=found), form)


def _volume(request: HttpRequest, pk: int) -> Volume:
    found = Volume.objects.restrict(request.user, "operate").select_related("pool__pool", "pool__host")
    volume: Volume = get_object_or_404(found, pk=pk)
    return volume


@require_safe
def volume(request: HttpRequest, pk: int) -> HttpResponse:
    """Show a volume and who uses it."""
    return _volume_page(request, _volume(request, pk))


def _volume_page(
    request: HttpRequest,
    volume: Volume,
    larger: Larger | None = None,
    copy: Copy | None = None,
    confirm: ConfirmForm | None = None,
    other: ToPool | None = None,
) -> HttpResponse:
    uses, kind = uses_of([volume])[volume.pk], volume.pool.observed_kind
    shown = (
        larger or Larger(),
        copy or Copy(),
        confirm or ConfirmForm(name=volume.name),
        other or ToPool(volume=volume),
    )
    context = {
        "volume": volume,
        "uses": uses,
        "orphan": is_orphan(volume, uses),
        "denied": services.why_not(volume),
        "does": {verb.value: can(kind, verb) for verb in VolumeVerb},
        "not_here": pool_words.not_here(kind),
        "ready": downloading.ready(volume, _subject(volume)),
        "larger": shown[0],
        "copy": shown[1],
        "confirm": shown[2],
        "other": shown[3],
        "kept_here": moving.why_not(volume),
    }
    status = 422 if any(form.errors for form in shown) else 200
    return render(request, "hosts/volume.html", context, status=status)


@require_POST
def download(request: HttpRequest, pk: int) -> HttpResponse:
    """Let a volume's file be brought here."""
    found = _volume(request, pk)
    with attempt(request):
        return redirect("operations:detail", services.download(actor=request.user, volume=found).pk)
    return redirect("hosts:volume", found.pk)


@require_POST
def take(request: HttpRequest, pk: int) -> Any:
    """Send a volume's file that is here."""
    found = _volume(request, pk)
    with attempt(request):
        length, pieces = downloading.take(actor=request.user, volume=found, subject=_subject(found))
        kind = "application/octet-stream"
        return stream(request, pieces, content_type=kind, name=found.name, length=length)
    return redirect("hosts:volume", found.pk)


def _subject(volume: Volume) -> str:
    return services.subject_of(volume.pool, volume.name)


@require_POST
def grow(request: HttpRequest, pk: int) -> HttpResponse:
    """Make a volume larger."""
    found, form = _volume(request, pk), Larger(request.POST)
    if form.is_valid():
        with denied_at(form):
            begun = services.grow(actor=request.user, volume=found, **form.cleaned_data)
            return redirect("operations:detail", begun.pk)
    return _volume_page(request, found, larger=form)


@require_POST
def clone(request: HttpRequest, pk: int) -> HttpResponse:
    """Copy a volume."""
    found, form = _volume(request, pk), Copy(request.POST)
    if form.is_valid():
        with denied_at(form):
            begun = services.clone(actor=request.user, volume=found, **form.cleaned_data)
            return redirect("operations:detail", begun.pk)
    return _volume_page(request, found, copy=form)


@require_POST
def to_pool(request: HttpRequest, pk: int) -> HttpResponse:
    """Copy a volume to another pool, or move it there, as the button says."""
    found = _volume(request, pk)
    form = ToPool(request.POST, volume=found)
    act = moving.move if request.POST.get("what") == "move" else moving.copy
    if form.is_valid():
        told = {"to": form.cleaned_data["pool"], "name": form.cleaned_data["name"]}
        with denied_at(form):
            return redirect("operations:detail", act(actor=request.user, volume=found, **told).pk)
    return _volume_page(request, found, other=form)


@require_POST
def delete(request: HttpRequest, pk: int) -> HttpResponse:
    """Delete a volume."""
    found = _volume(request, pk)
    form = ConfirmForm(request.POST, name=found.name)
    if form.is_valid():
        with denied_at(form):
            begun = services.delete(actor=request.user, volume=found, **form.cleaned_data)
            return redirect("operations:detail", begun.pk)
    return _volume_page(request, found, confirm=form)
