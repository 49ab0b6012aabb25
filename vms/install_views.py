"""Pages of the answers that installers read. Each parses, calls a service, renders."""

from typing import Any

from django import forms
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from portal.core.web.forms import SeenForm
from portal.core.web.htmx import attempt, denied_at
from vms import install_templates as templates
from vms.models import InstallTemplate
from vms.unattended import ASKS, NAMES, Format

SALT = "vms.install_template"


class TemplateForm(SeenForm):
    """Answers for one kind of installer."""

    salt = SALT
    name = forms.CharField(label=gettext_lazy("Name"), max_length=80)
    format = forms.ChoiceField(label=gettext_lazy("For"), choices=Format.choices)
    text = forms.CharField(
        label=gettext_lazy("Answers"),
        strip=False,
        max_length=100_000,
        widget=forms.Textarea(
            attrs={"rows": 24, "class": "font-monospace", "spellcheck": "false", "autocapitalize": "none"}
        ),
    )


@require_safe
def template_list(request: HttpRequest) -> HttpResponse:
    """List the templates."""
    context = {"templates": _all(request), "tab": "templates"}
    return render(request, "vms/admin/templates.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
def template_add(request: HttpRequest) -> HttpResponse:
    """Keep another template."""
    _all(request)
    form = TemplateForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        with denied_at(form):
            values = {name: form.cleaned_data[name] for name in ("name", "format", "text")}
            made = templates.add(actor=request.user, **values)
            messages.success(request, _("%(template)s is kept.") % {"template": made})
            return redirect("vms:templates")
    return _page(request, form)


@require_http_methods(["GET", "HEAD", "POST"])
def template_edit(request: HttpRequest, pk: int) -> HttpResponse:
    """Show a template and change it."""
    template = get_object_or_404(_all(request), pk=pk)
    form = TemplateForm(request.POST or None, initial=templates.snapshot(template))
    if request.method == "GET":
        form.show(templates.snapshot(template))
    elif form.is_valid():
        with denied_at(form):
            try:
                templates.change(actor=request.user, template=template, **form.cleaned_data)
            except templates.Changed:
                template.refresh_from_db()
                form.show(templates.snapshot(template))
                raise
            messages.success(request, _("Saved."))
            return redirect("vms:templates")
    return _page(request, form, template=template)


@require_POST
def template_delete(request: HttpRequest, pk: int) -> HttpResponse:
    """Delete a template."""
    template = get_object_or_404(_all(request), pk=pk)
    with attempt(request, _("%(template)s is deleted.") % {"template": template}):
        templates.delete(actor=request.user, template=template)
    return redirect("vms:templates")


def _all(request: HttpRequest) -> Any:
    """Return the templates for who keeps them; for anybody else the pages are not there."""
    if not templates.may_edit(request.user):
        raise Http404
    return InstallTemplate.objects.restrict(request.user, "operate")


def _page(request: HttpRequest, form: TemplateForm, **context: Any) -> HttpResponse:
    context |= {"form": form, "names": NAMES, "asks": ASKS}
    return render(request, "vms/admin/template.html", context, status=422 if form.errors else 200)
