"""Pages on which admins keep the catalogue. Each parses, calls a service, renders."""

from collections.abc import Callable, Mapping
from typing import Any

from django.core.paginator import Paginator
from django.db.models import Count, Q
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from portal.accounts.backends import may
from portal.core.errors import Denied
from portal.core.stale import Changed
from portal.core.web.forms import ConfirmForm
from portal.core.web.htmx import attempt, is_htmx, render_page
from portal.core.web.lists import ordering, search_of
from portal.hosts import services as hosts
from portal.hosts.images.in_use import stood_on, uses_of
from portal.hosts.models import Image, Upload
from portal.live.panels import row_keys
from portal.operations.models import Operation
from vms import direct_boot, guidance, profiles
from vms.catalogue import appliances, services
from vms.catalogue.forms import DeprecateForm, ItemForm, SizeForm
from vms.catalogue.image_forms import label_of
from vms.catalogue.values import Refused, item_snapshot, size_snapshot
from vms.models import CatalogueItem, Flavour
from vms.offers import offers
from vms.virtualization import Devices

PAGE_SIZE = 50
SIZE_ORDER = {
    "name": ["name"],
    "vcpus": ["vcpus", "name"],
    "memory": ["memory", "name"],
    "disk": ["disk", "name"],
    "cost": ["cost_month", "name"],
}
IMAGE_ORDER = {"name": ["title", "-pk"], "imported": ["imported_at", "pk"], "size": ["size", "pk"]}


def for_admins(request: HttpRequest) -> None:
    """Raise Http404 unless who asks administers every project."""
    # The catalogue is the whole estate's; for anybody else these pages are not there.
    if not may(request.user, "administer", None):
        raise Http404


def _page(request: HttpRequest, found: Any) -> Any:
    return Paginator(found, PAGE_SIZE).get_page(request.GET.get("page"))


@require_safe
def items(request: HttpRequest) -> HttpResponse:
    """List the items in the order in which people see them."""
    for_admins(request)
    search = search_of(request)
    found = CatalogueItem.objects.restrict(request.user, "view")
    if search:
        found = found.filter(Q(name__icontains=search) | Q(image__title__icontains=search))
    found = found.select_related("image").prefetch_related("flavours", "projects")
    page = _page(request, found)
    known = offers(page.object_list)
    context = {
        "page": page,
        "rows": [{"item": item, "offer": known[item.pk]} for item in page.object_list],
        "search": search,
        "tab": "items",
    }
    return render_page(request, "vms/admin/items.html", context, partial="vms/admin/items_table.html")


def _item(request: HttpRequest, pk: int) -> CatalogueItem:
    for_admins(request)
    found = CatalogueItem.objects.restrict(request.user, "view").select_related("image")
    item: CatalogueItem = get_object_or_404(found, pk=pk)
    return item


def _keep(form: Any, save: Callable[[], Any], now: Callable[[], Mapping[str, Any]]) -> bool:
    """Save, or put what the service says against it at the form; what was typed is kept.

    When somebody else was faster, the form tells what changed and from then on counts as having seen it.
    """
    try:
        save()
    except Refused as refused:
        form.refuse(refused.problems)
    except Changed as changed:
        form.changes = changed.changes
        form.add_error(None, changed.reason)
        form.show(now())
    except Denied as denied:
        form.add_error(None, denied.reason)
    return not form.errors


@require_http_methods(["GET", "HEAD", "POST"])
def item_add(request: HttpRequest) -> HttpResponse:
    """Offer something new."""
    for_admins(request)
    chosen = chosen_image(request)
    form = ItemForm(request.POST or None, actor=request.user, image=chosen)
    if request.method == "POST" and form.is_valid():
        values = form.values()
        if _keep(form, lambda: services.add_item(actor=request.user, values=values), dict):
            return redirect("vms:catalogue_admin")
    sizes = Flavour.objects.restrict(request.user, "view")
    return _item_page(request, form, None, image=chosen, no_size=appliances.hint(chosen, sizes))


def chosen_image(request: HttpRequest) -> Image | None:
    """Return the image that something new is to be made like, when the person comes from its page."""
    keys = row_keys([request.GET.get("image", "")])
    found: Image | None = Image.objects.restrict(request.user, "view").filter(pk__in=keys).first()
    return found


@require_http_methods(["GET", "HEAD", "POST"])
def item_edit(request: HttpRequest, pk: int) -> HttpResponse:
    """Change an item for what is asked from now on."""
    item = _item(request, pk)
    form = ItemForm(request.POST or None, actor=request.user, item=item)
    if request.method == "POST" and form.is_valid():
        values, seen = form.values(), form.cleaned_data["seen"]
        saved = _keep(
            form,
            lambda: services.change_item(actor=request.user, item=item, values=values, seen=seen),
            lambda: item_snapshot(_item(request, pk)),
        )
        if saved:
            return redirect("vms:catalogue_admin")
    return _item_page(request, form, item)


def _item_page(
    request: HttpRequest, form: ItemForm, item: CatalogueItem | None, **more: Any
) -> HttpResponse:
    uses = services.uses_of(item) if item else 0
    context = {
        "form": form,
        "item": item,
        "uses": uses,
        "delete": ConfirmForm(name=item.name) if item and not uses else None,
        **more,
    }
    return render(request, "vms/admin/item.html", context, status=422 if form.errors else 200)


@require_POST
def item_offer(request: HttpRequest, pk: int) -> HttpResponse:
    """Retire an item, or offer it again."""
    item, offered = _item(request, pk), request.POST.get("offered") == "1"
    done = _("%(item)s is offered again.") if offered else _("%(item)s is not offered any more.")
    with attempt(request, done % {"item": item}):
        services.offer_item(actor=request.user, item=item, offered=offered)
    return redirect("vms:catalogue_admin")


@require_POST
def item_move(request: HttpRequest, pk: int) -> HttpResponse:
    """Move an item up or down in what people see."""
    item = _item(request, pk)
    with attempt(request, _("%(item)s was moved.") % {"item": item}):
        services.move_item(actor=request.user, item=item, up=request.POST.get("to") == "up")
    return redirect("vms:catalogue_admin")


@require_POST
def item_delete(request: HttpRequest, pk: int) -> HttpResponse:
    """Delete an item that nobody ever asked for."""
    item, typed = _item(request, pk), request.POST.get("confirm_name", "")
    with attempt(request, _("%(item)s is deleted.") % {"item": item}):
        services.delete_item(actor=request.user, item=item, confirm_name=typed)
        return redirect("vms:catalogue_admin")
    return redirect("vms:item_edit", pk)


@require_http_methods(["GET", "HEAD", "POST"])
def sizes(request: HttpRequest) -> HttpResponse:
    """List the sizes and make a new one."""
    for_admins(request)
    form = SizeForm(request.POST or None, image=chosen_image(request))
    if request.method == "POST" and form.is_valid():
        values = form.values()
        if _keep(form, lambda: services.add_size(actor=request.user, values=values), dict):
            return redirect("vms:sizes")
    search = search_of(request)
    found = Flavour.objects.restrict(request.user, "view").annotate(uses=Count("items"))
    if search:
        found = found.filter(name__icontains=search)
    sort, columns = ordering(request, SIZE_ORDER, default="memory")
    page = _page(request, found.order_by(*columns).prefetch_related("items"))
    context = {"page": page, "search": search, "sort": sort, "form": form, "tab": "sizes"}
    status = 422 if form.errors else 200
    return render_page(
        request, "vms/admin/sizes.html", context, partial="vms/admin/sizes_table.html", status=status
    )


def _size(request: HttpRequest, pk: int) -> Flavour:
    for_admins(request)
    size: Flavour = get_object_or_404(Flavour.objects.restrict(request.user, "view"), pk=pk)
    return size


@require_http_methods(["GET", "HEAD", "POST"])
def size_edit(request: HttpRequest, pk: int) -> HttpResponse:
    """Change a size for what is asked from now on."""
    size = _size(request, pk)
    form = SizeForm(request.POST or None, size=size)
    if request.method == "POST" and form.is_valid():
        values, seen = form.values(), form.cleaned_data["seen"]
        saved = _keep(
            form,
            lambda: services.change_size(actor=request.user, size=size, values=values, seen=seen),
            lambda: size_snapshot(_size(request, pk)),
        )
        if saved:
            return redirect("vms:sizes")
    used_by = list(size.items.all())
    context = {"form": form, "size": size, "used_by": used_by, "no_delete": _in_use(used_by)}
    return render(request, "vms/admin/size.html", context, status=422 if form.errors else 200)


def _in_use(used_by: list[CatalogueItem]) -> str:
    names = ", ".join(item.name for item in used_by)
    return _("It is a size of %(items)s.") % {"items": names} if names else ""


@require_POST
def size_delete(request: HttpRequest, pk: int) -> HttpResponse:
    """Delete a size that no item comes in."""
    size = _size(request, pk)
    with attempt(request, _("The size %(size)s is deleted.") % {"size": size}):
        services.delete_size(actor=request.user, size=size)
    return redirect("vms:sizes")


@require_safe
def images(request: HttpRequest) -> HttpResponse:
    """List the images: where each lies and what is made from it."""
    for_admins(request)
    search = search_of(request)
    found = Image.objects.restrict(request.user, "view")
    if search:
        found = found.filter(Q(title__icontains=search) | Q(sha256__startswith=search.lower()))
    sort, columns = ordering(request, IMAGE_ORDER, default="name")
    found = found.order_by(*columns).prefetch_related("items", "attachments__pool__host")
    coming = Upload.objects.restrict(request.user, "administer").filter(pool=None)
    coming = coming.exclude(state=Upload.State.DONE)
    context = {
        "page": _page(request, found),
        "search": search,
        "sort": sort,
        "tab": "images",
        "uploads": [] if is_htmx(request) else coming.select_related("person")[:PAGE_SIZE],
    }
    return render_page(request, "vms/admin/images.html", context, partial="vms/admin/images_table.html")


def _image(request: HttpRequest, pk: int) -> Image:
    for_admins(request)
    image: Image = get_object_or_404(Image.objects.restrict(request.user, "view"), pk=pk)
    return image


@require_safe
def image(request: HttpRequest, pk: int) -> HttpResponse:
    """Show one image."""
    return _image_page(request, _image(request, pk))


def _image_page(request: HttpRequest, found: Image, form: DeprecateForm | None = None) -> HttpResponse:
    """Draw an image's page, with the form on it that was refused."""
    versions = _versions(request, found)
    places = found.attachments.select_related("image", "pool__host", "pool__pool")
    context = {
        "image": found,
        "form": form or DeprecateForm(),
        "edited": [label_of(name) for name in found.edited],
        "delete": ConfirmForm(name=found.name),
        "uses": " ".join(uses_of(found) or stood_on(found)),
        "operations": _operations(request, found),
        "versions": versions,
        "older_items": [item for one in versions if one.pk < found.pk for item in one.items.all()],
        "newer": next((one for one in versions if one.pk > found.pk and not one.deprecated_at), None),
        "drivers": [Devices(name).label for name in found.device_models],
        "places": places.order_by("pool__host__name"),
        "shared_with": found.projects.order_by("name"),
        "used_by": found.items.all(),
        "machines": found.machines.count(),
        "answered_by": [form.label for form in direct_boot.formats(found)],
        "not_answered": direct_boot.remark(found),
        "system": guidance.facts(found.os),
        "no_system": guidance.unknown(found.os),
        "appliance": appliances.facts(found),
        "board": profiles.profiles_of(found)[0].label,
    }
    wrong = bool(form and form.errors)
    return render(request, "vms/admin/image.html", context, status=422 if wrong else 200)


def _versions(request: HttpRequest, image: Image) -> list[Image]:
    """Return the versions of an image, the newest first, each with how many machines were made from it."""
    found = Image.objects.restrict(request.user, "view").filter(name=image.name, kind=image.kind)
    counted = found.annotate(made=Count("machines", distinct=True)).order_by("-pk")
    return list(counted.prefetch_related("items")[:PAGE_SIZE])


def _operations(request: HttpRequest, image: Image) -> Any:
    found = Operation.objects.restrict(request.user, "view").filter(subject=image.topic)
    return found.select_related("requester").order_by("-pk")[:3]


@require_POST
def image_use(request: HttpRequest, pk: int) -> HttpResponse:
    """Let items of older versions be made from this one."""
    found = _image(request, pk)
    with attempt(request, _("The items are made from %(image)s now.") % {"image": found.label}):
        services.use_version(actor=request.user, image=found, items=row_keys(request.POST.getlist("item")))
    return redirect("vms:image", pk)


@require_POST
def image_deprecate(request: HttpRequest, pk: int) -> HttpResponse:
    """Let nothing new be made from an image, with a reason, or let it again."""
    found = _image(request, pk)
    if request.POST.get("restore") == "1":
        with attempt(request, _("Machines can be made from %(image)s again.") % {"image": found}):
            hosts.restore_image(actor=request.user, image=found)
        return redirect("vms:image", pk)
    form = DeprecateForm(request.POST)
    if form.is_valid():
        reason = form.cleaned_data["reason"]
        with attempt(request, _("Nothing new is made from %(image)s.") % {"image": found}):
            hosts.deprecate_image(actor=request.user, image=found, reason=reason)
        return redirect("vms:image", pk)
    return _image_page(request, found, form)
