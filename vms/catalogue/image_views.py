"""Pages on which admins add images and delete them, and what a browser sends a file to."""

from collections.abc import Mapping
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from portal.core.errors import Denied
from portal.core.stale import Changed
from portal.core.web.htmx import attempt, denied_at
from portal.hosts.images import services, store
from portal.hosts.models import Image, Upload
from portal.operations.models import Operation
from vms.catalogue.image_forms import AddForm, DescribeForm, FetchForm, FileForm
from vms.catalogue.views import for_admins, image_page


@require_http_methods(["GET", "HEAD", "POST"])
def image_add(request: HttpRequest) -> HttpResponse:
    """Say what an image will be; its file is chosen on the page that follows."""
    for_admins(request)
    form = AddForm(request.POST or None, actor=request.user)
    if request.method == "POST" and form.is_valid():
        with denied_at(form):
            upload = services.begin_upload(
                actor=request.user, wanted=form.wanted(), sha256=form.cleaned_data["sha256"]
            )
        if not form.errors:
            return redirect("vms:upload", upload.pk)
    return _form_page(request, form, "add")


@require_http_methods(["GET", "HEAD", "POST"])
def image_fetch(request: HttpRequest) -> HttpResponse:
    """Let the portal fetch an image from an address."""
    for_admins(request)
    form = FetchForm(request.POST or None, actor=request.user)
    if request.method == "POST" and form.is_valid():
        typed = form.cleaned_data
        with denied_at(form):
            operation = services.begin_import(
                actor=request.user, wanted=form.wanted(), address=typed["address"], sha256=typed["sha256"]
            )
        if not form.errors:
            return redirect("operations:detail", operation.pk)
    return _form_page(request, form, "fetch")


def _form_page(request: HttpRequest, form: AddForm, way: str) -> HttpResponse:
    context = {"form": form, "way": way}
    return render(request, "vms/admin/image_add.html", context, status=422 if form.errors else 200)


def _upload(request: HttpRequest, pk: int) -> Upload:
    found = Upload.objects.restrict(request.user, "administer").select_related("person", "image")
    upload: Upload = get_object_or_404(found, pk=pk)
    return upload


@require_safe
def upload(request: HttpRequest, pk: int) -> HttpResponse:
    """Show an upload: choose its file, or see how its import goes."""
    found = _upload(request, pk)
    there = store.length(store.part_of(found)) if found.state == Upload.State.OPEN else found.file_size
    operations = Operation.objects.restrict(request.user, "view").filter(subject=found.topic)
    context = {
        "upload": found,
        "mine": found.person_id == request.user.pk,
        "there": there,
        "percent": 100 * there // found.file_size if found.file_size else 0,
        "can_retry": services.can_retry(found),
        "operations": operations.select_related("requester").order_by("-pk")[:5],
    }
    return render(request, "vms/admin/upload.html", context)


def _refused(reason: str, status: int = 422, **more: Any) -> JsonResponse:
    return JsonResponse({"reason": reason, **more}, status=status)


@require_POST
def upload_start(request: HttpRequest, pk: int) -> HttpResponse:
    """Take the name, length and beginning of the file; answer where to go on."""
    found, form = _upload(request, pk), FileForm(request.POST)
    if not form.is_valid():
        return _refused(_("The browser did not say which file it is."))
    try:
        offset = services.start_file(actor=request.user, upload=found, **form.cleaned_data)
    except Denied as denied:
        return _refused(denied.reason)
    return JsonResponse({"offset": offset})


@require_POST
def upload_chunk(request: HttpRequest, pk: int, offset: int) -> HttpResponse:
    """Take the bytes of the body as those from `offset` on; answer where to go on.

    409 when they do not follow what is there, 507 when the disk is full.
    """
    found = _upload(request, pk)
    length = request.META.get("CONTENT_LENGTH") or ""
    if not length.isdigit():
        return _refused(_("The browser did not say how long this part is."), status=411)
    told: Mapping[str, Any] = {"offset": offset, "stream": request, "length": int(length)}
    try:
        there = services.receive(actor=request.user, upload=found, **told)
    except store.WrongOffset as wrong:
        return JsonResponse({"offset": wrong.offset}, status=409)
    except store.StoreFull:
        return _refused(_("The portal's disk is full. What was sent is kept; go on when there is room."), 507)
    except Denied as denied:
        return _refused(denied.reason)
    return JsonResponse({"offset": there})


@require_POST
def upload_retry(request: HttpRequest, pk: int) -> HttpResponse:
    """Import what failed again."""
    found = _upload(request, pk)
    with attempt(request, _("%(upload)s is being imported again.") % {"upload": found}):
        services.retry(actor=request.user, upload=found)
    return redirect("vms:upload", pk)


@require_POST
def upload_drop(request: HttpRequest, pk: int) -> HttpResponse:
    """Throw an upload away."""
    found = _upload(request, pk)
    with attempt(request, _("The upload of %(upload)s was thrown away.") % {"upload": found}):
        services.give_up(actor=request.user, upload=found)
        return redirect("vms:images")
    return redirect("vms:upload", pk)


def _image(request: HttpRequest, pk: int) -> Image:
    for_admins(request)
    image: Image = get_object_or_404(Image.objects.restrict(request.user, "administer"), pk=pk)
    return image


@require_POST
def image_describe(request: HttpRequest, pk: int) -> HttpResponse:
    """Say what system is in an image, and who may use it."""
    found = _image(request, pk)
    form = DescribeForm(request.POST, actor=request.user, image=found)
    if form.is_valid():
        typed = form.cleaned_data
        with denied_at(form):
            try:
                services.describe_image(
                    actor=request.user,
                    image=found,
                    system=typed["os"],
                    uefi=typed["uefi"],
                    every_project=typed["every_project"],
                    projects=form.chosen(),
                    seen=typed["seen"],
                )
            except Changed as changed:
                # What it tells counts as seen from then on.
                form.changes = changed.changes
                form.show(services.image_snapshot(_image(request, pk)))
                raise
        if not form.errors:
            return redirect("vms:image", pk)
    return image_page(request, found, describe=form)


@require_POST
def image_delete(request: HttpRequest, pk: int) -> HttpResponse:
    """Delete an image that nothing is made from."""
    found, typed = _image(request, pk), request.POST.get("confirm_name", "")
    with attempt(request, _("%(image)s is being deleted.") % {"image": found}):
        services.delete_image(actor=request.user, image=found, confirm_name=typed)
    return redirect("vms:image", pk)
