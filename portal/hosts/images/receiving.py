"""What a browser sends a file to, whatever the file becomes. Not for: the pages around it."""

import base64
from collections.abc import Mapping
from typing import Any

from django import forms
from django.http import HttpRequest, HttpResponse, JsonResponse, UnreadablePostError
from django.utils.translation import gettext as _

from portal.core.errors import Denied
from portal.core.numbers import number_of
from portal.core.web.htmx import denied_at
from portal.hosts.images import passing, services, store
from portal.hosts.models import Upload
from portal.operations.models import Operation


class FileForm(forms.Form):
    """Which file a browser is about to send: its name, its bytes, and how it begins (base64).

    To know it again: pieces from elsewhere in it, and when it was changed last, as the browser writes them.
    """

    name = forms.CharField(max_length=1000)
    size = forms.IntegerField(min_value=0)
    head = forms.CharField(max_length=8192, required=False)
    samples = forms.CharField(max_length=8192, required=False)
    modified = forms.CharField(max_length=32, required=False)

    def clean_head(self) -> bytes:
        """Return the bytes. Raises ValidationError."""
        try:
            return base64.b64decode(self.cleaned_data["head"], validate=True)
        except ValueError as error:  # binascii.Error is one, and text that is not ASCII another
            raise forms.ValidationError(_("The beginning of the file cannot be read.")) from error


class DiskForm(forms.Form):
    """Which disk of an appliance is taken; nothing for a file as it is."""

    disk = forms.IntegerField(required=False)


def choose(request: HttpRequest, upload: Upload) -> DiskForm | None:
    """Import the file again with the disk that was chosen; return the form when that is refused."""
    form = DiskForm(request.POST)
    if form.is_valid():
        with denied_at(form):
            services.choose_disk(actor=request.user, upload=upload, number=form.cleaned_data["disk"])
    return form if form.errors else None


def shown(
    request: HttpRequest, upload: Upload, routes: Mapping[str, str], choice: DiskForm | None = None
) -> dict[str, Any]:
    """Return what a page says of an upload: how much of it is here, and what is done with it.

    `routes` names the addresses that take its file (`start`, `chunk`) and its buttons (`retry`, `drop`,
    `choose`); `choice` is a choice of a disk that was refused.
    """
    there = store.length(store.part_of(upload)) if upload.state == Upload.State.OPEN else upload.file_size
    operations = Operation.objects.restrict(request.user, "view").filter(subject=upload.topic)
    return {
        "upload": upload,
        "routes": routes,
        "mine": upload.person_id == request.user.pk,
        "there": there,
        "percent": 100 * there // upload.file_size if upload.file_size else 0,
        "can_retry": services.can_retry(upload) and not services.must_choose(upload),
        "must_choose": services.can_retry(upload) and services.must_choose(upload),
        "takes_all": services.takes_all(upload),
        "choice": choice,
        "operations": operations.select_related("requester").order_by("-pk")[:5],
    }


def start(request: HttpRequest, upload: Upload) -> HttpResponse:
    """Take the name, length and beginning of the file; answer where to go on."""
    form = FileForm(request.POST)
    if not form.is_valid():
        return _refused(_("The browser did not say which file it is."))
    try:
        offset = services.start_file(actor=request.user, upload=upload, **form.cleaned_data)
    except Denied as denied:
        return _refused(denied.reason)
    return JsonResponse({"offset": offset})


def chunk(request: HttpRequest, upload: Upload, offset: int) -> HttpResponse:
    """Take the bytes of the body as those from `offset` on; answer where to go on.

    409 when they do not follow what is there, 507 when the disk is full, 503 while the keeper is away.
    """
    length = number_of(request.META.get("CONTENT_LENGTH"))
    if length is None:
        return _refused(_("The browser did not say how long this part is."), status=411)
    told: Mapping[str, Any] = {"offset": offset, "stream": request, "length": length}
    try:
        there = services.receive(actor=request.user, upload=upload, **told)
    except store.WrongOffset as wrong:
        return JsonResponse({"offset": wrong.offset}, status=409)
    except store.StoreFull:
        return _refused(_("The portal's disk is full. What was sent is kept; go on when there is room."), 507)
    except UnreadablePostError:
        # The browser left, and sees no answer; it goes on after what came.
        return _refused("", 400)
    except passing.Away:
        return _refused(_("The part of the portal that keeps files does not answer."), 503)
    except Denied as denied:
        return _refused(denied.reason)
    return JsonResponse({"offset": there})


def _refused(reason: str, status: int = 422) -> JsonResponse:
    return JsonResponse({"reason": reason}, status=status)
