"""Keep the answers that installers read. Not for: filling them in, which `vms.unattended` does."""

from collections.abc import Mapping
from typing import Any

from django.db import IntegrityError, transaction
from django.utils.translation import gettext as _

from portal.accounts.backends import may
from portal.audit import services as audit
from portal.core.errors import Denied
from vms import unattended
from vms.checks import unreadable
from vms.models import InstallTemplate

#: What the page showed, so that nobody overwrites what they never saw.
Snapshot = Mapping[str, str]


class Changed(Denied):
    """Somebody else changed the template since the page was made."""


def snapshot(template: InstallTemplate) -> dict[str, str]:
    """Return the values of a template."""
    return {"name": template.name, "format": template.format, "text": template.text}


def may_edit(actor: Any) -> bool:
    """Tell whether `actor` may keep templates: operators of every project."""
    return may(actor, "operate", None)


def add(*, actor: Any, name: str, format: str, text: str) -> InstallTemplate:
    """Keep another template. Raises Denied, with the field that stands in the way."""
    _check(actor, name, format, text)
    try:
        with transaction.atomic():
            made = InstallTemplate.objects.create(name=name.strip(), format=format, text=_lines(text))
            audit.record(actor=actor, verb="install_template.added", target=made, after=snapshot(made))
    except IntegrityError as error:
        raise _taken(name) from error
    return made


def change(
    *, actor: Any, template: InstallTemplate, name: str, format: str, text: str, seen: Snapshot
) -> InstallTemplate:
    """Give a template other values; requests that wait keep what they were asked with.

    Idempotent. Raises Denied, and Changed when it is not as it was `seen`.
    """
    _check(actor, name, format, text)
    wanted = {"name": name.strip(), "format": format, "text": _lines(text)}
    try:
        with transaction.atomic():
            current = _locked(template)
            before = snapshot(current)
            if before == wanted:
                return current
            if before != seen:
                raise Changed(_("Somebody else changed it meanwhile. Saving again replaces what they wrote."))
            for field, value in wanted.items():
                setattr(current, field, value)
            current.save()
            audit.record(
                actor=actor, verb="install_template.changed", target=current, before=before, after=wanted
            )
    except IntegrityError as error:
        raise _taken(name) from error
    return current


def delete(*, actor: Any, template: InstallTemplate) -> None:
    """Delete a template; requests keep their text of it. Idempotent. Raises Denied."""
    _check_right(actor)
    with transaction.atomic():
        current = InstallTemplate.objects.select_for_update().filter(pk=template.pk).first()
        if current is None:
            return
        audit.record(actor=actor, verb="install_template.deleted", target=current, before=snapshot(current))
        current.delete()


def _locked(template: InstallTemplate) -> InstallTemplate:
    current: InstallTemplate | None = (
        InstallTemplate.objects.select_for_update().filter(pk=template.pk).first()
    )
    if current is None:
        raise Denied(_("%(template)s was deleted meanwhile.") % {"template": template})
    return current


def _check_right(actor: Any) -> None:
    if not may_edit(actor):
        raise Denied(_("Only an operator of every project keeps templates for installers."))


def _check(actor: Any, name: str, format: str, text: str) -> None:
    _check_right(actor)
    if not name.strip() or unreadable(name):
        raise Denied(_("Give it a name of plain words."), field="name")
    try:
        unattended.check(format, _lines(text))
    except unattended.Refused as refusal:
        raise Denied(str(refusal), field="text") from refusal


def _taken(name: str) -> Denied:
    return Denied(_("There is another template called %(name)s.") % {"name": name}, field="name")


def _lines(text: str) -> str:
    """Return text with the line ends of an installer's files; a browser sends others."""
    return text.replace("\r\n", "\n")
