"""Pages on which admins add images and delete them, and what a browser sends a file to."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from portal.core.stale import Changed
from portal.core.web.htmx import attempt, denied_at
from portal.hosts.images import receiving, services
from portal.hosts.images.describing import snapshot
from portal.hosts.models import Image, Upload
from vms.catalogue import describing
from vms.catalogue.image_forms import AddForm, DescribeForm, FetchForm
from vms.catalogue.views import chosen_image, for_admins


@require_http_methods(["GET", "HEAD", "POST"])
def image_add(request: HttpRequest) -> HttpResponse:
    """Say what an image will be; its file is chosen on the page that follows."""
    for_admins(request)
    form = AddForm(request.POST or None, actor=request.user, older=chosen_image(request))
    if request.method == "POST" and form.is_valid():
        with denied_at(form):
            typed = form.cleaned_data
            upload = services.begin_upload(
                actor=request.user, wanted=form.wanted(), sha256=typed["sha256"], disk=typed["disk"]
            )
        if not form.errors:
            return redirect("vms:upload", upload.pk)
    return _form_page(request, form, "add")


@require_http_methods(["GET", "HEAD", "POST"])
def image_fetch(request: HttpRequest) -> HttpResponse:
    """Let the portal fetch an image from an address."""
    for_admins(request)
    form = FetchForm(request.POST or None, actor=request.user, older=chosen_image(request))
    if request.method == "POST" and form.is_valid():
        typed = form.cleaned_data
        with denied_at(form):
            operation = services.begin_import(
                actor=request.user,
                wanted=form.wanted(),
                address=typed["address"],
                sha256=typed["sha256"],
                disk=typed["disk"],
            )
        if not form.errors:
            return redirect("operations:detail", operation.pk)
    return _form_page(request, form, "fetch")


def _form_page(request: HttpRequest, form: AddForm, way: str) -> HttpResponse:
    context = {"form": form, "way": way, "older": chosen_image(request)}
    return render(request, "vms/admin/image_add.html", context, status=422 if form.errors else 200)


_ROUTES = {name: f"vms:upload_{name}" for name in ("start", "chunk", "retry", "drop", "choose")}


def _upload(request: HttpRequest, pk: int) -> Upload:
    found = Upload.objects.restrict(request.user, "administer").filter(pool=None)
    upload: Upload = get_object_or_404(found.select_related("person", "image"), pk=pk)
    return upload


@require_safe
def upload(request: HttpRequest, pk: int) -> HttpResponse:
    """Show an upload: choose its file, or see how its import goes."""
    return _upload_page(request, _upload(request, pk))


def _upload_page(
    request: HttpRequest, found: Upload, choice: receiving.DiskForm | None = None
) -> HttpResponse:
    context = receiving.shown(request, found, _ROUTES, choice)
    return render(request, "vms/admin/upload.html", context, status=422 if choice else 200)


@require_POST
def upload_start(request: HttpRequest, pk: int) -> HttpResponse:
    """Take which file follows."""
    return receiving.start(request, _upload(request, pk))


@require_POST
def upload_chunk(request: HttpRequest, pk: int, offset: int) -> HttpResponse:
    """Take a part of the file."""
    return receiving.chunk(request, _upload(request, pk), offset)


@require_POST
def upload_retry(request: HttpRequest, pk: int) -> HttpResponse:
    """Import what failed again."""
    found = _upload(request, pk)
    with attempt(request, _("%(upload)s is being imported again.") % {"upload": found}):
        services.retry(actor=request.user, upload=found)
    return redirect("vms:upload", pk)


@require_POST
def upload_choose(request: HttpRequest, pk: int) -> HttpResponse:
    """Import the disk that was chosen out of an OVA."""
    found = _upload(request, pk)
    if refused := receiving.choose(request, found):
        return _upload_page(request, found, refused)
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


@require_http_methods(["GET", "HEAD", "POST"])
def image_describe(request: HttpRequest, pk: int) -> HttpResponse:
    """Say anew what an image is, and who may use it."""
    found = _image(request, pk)
    form = DescribeForm(request.POST or None, actor=request.user, image=found)
    if request.method == "POST" and form.is_valid() and _described(request, found, form):
        return redirect("vms:image", pk)
    context = {"form": form, "image": found}
    # What follows is a question, and nothing that was wrong.
    return render(request, "vms/admin/image_describe.html", context, status=422 if form.errors else 200)


def _described(request: HttpRequest, found: Image, form: DescribeForm) -> bool:
    """Save what was typed, or put what stands in its way at the form."""
    typed = form.cleaned_data
    with denied_at(form):
        try:
            describing.describe(
                actor=request.user,
                image=found,
                values=form.values(),
                seen=typed["seen"],
                given_back=typed.get("given_back", ()),
                agreed=typed["agreed"],
            )
        except describing.Follows as follows:
            form.tell(follows.effects, follows.token)
            return False
        except Changed as changed:
            # What it tells counts as seen from then on.
            form.changes = changed.changes
            form.show(snapshot(_image(request, found.pk)))
            raise
    return not form.errors


@require_POST
def image_delete(request: HttpRequest, pk: int) -> HttpResponse:
    """Delete an image that nothing is made from."""
    found, typed = _image(request, pk), request.POST.get("confirm_name", "")
    with attempt(request, _("%(image)s is being deleted.") % {"image": found}):
        services.delete_image(actor=request.user, image=found, confirm_name=typed)
    return redirect("vms:image", pk)
