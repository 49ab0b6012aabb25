"""Say what is known of the system in an image. Not for: refusing anything, nor reading the database."""

from collections.abc import Mapping

from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from portal.core import osinfo
from portal.core.osinfo import Knowledge, Resources
from portal.core.templatetags.gatehouse import gib


def unknown(os: str) -> str:
    """Return why nothing can be told of the system `os`, '' where something can."""
    if not os:
        return _("Nobody said which system is in this image.")
    if not osinfo.is_there():
        return _(
            "Nothing is known of systems here: the Debian package osinfo-db is not installed on the portal's "
            "machine. Everything else works without it."
        )
    if osinfo.knowledge(os) is None:
        return _("The database of systems (osinfo-db) does not know %(system)s.") % {"system": os}
    return ""


def facts(os: str) -> list[tuple[str, str]]:
    """Return what is known of the system `os`, each with its label; nothing where nothing is."""
    known = osinfo.knowledge(os) if os else None
    if known is None:
        return []
    told = [(_("System"), _name(os, known))]
    for label, sizes in ((_("Needs at least"), known.least), (_("Recommended"), known.recommended)):
        if words := _sizes(sizes):
            told.append((label, words))
    without = _("None for virtio; it needs emulated devices or a driver CD.")
    told.append((_("Drivers"), _("For virtio disks and cards.") if known.paravirtual else without))
    needs = [
        words
        for words, needed in ((_("UEFI firmware"), known.needs_uefi), (_("a TPM"), known.needs_tpm))
        if needed
    ]
    if needs:
        told.append((_("Does not start without"), ", ".join(needs)))
    if known.eol is not None:
        told.append((_("Maintained until"), date_format(known.eol, "DATE_FORMAT")))
    return told


def too_small(os: str, sizes: Mapping[str, int]) -> list[str]:
    """Return a sentence for each of `sizes` (vcpu, memory and disk in bytes) below what the system needs."""
    known = osinfo.knowledge(os) if os else None
    if known is None:
        return []
    name, least, found = _name(os, known), known.least, []
    if sizes["vcpu"] < least.vcpus:
        sentence = ngettext(
            "%(system)s needs at least %(least)d vCPU; this is %(asked)d.",
            "%(system)s needs at least %(least)d vCPUs; this is %(asked)d.",
            least.vcpus,
        )
        found.append(sentence % {"system": name, "least": least.vcpus, "asked": sizes["vcpu"]})
    memory = {"system": name, "least": gib(least.memory, 2), "asked": gib(sizes["memory"], 2)}
    if sizes["memory"] < least.memory:
        found.append(_("%(system)s needs at least %(least)s of memory; this is %(asked)s.") % memory)
    disk = {"system": name, "least": gib(least.disk, 2), "asked": gib(sizes["disk"], 2)}
    if sizes["disk"] < least.disk:
        found.append(_("%(system)s needs at least a disk of %(least)s; this is %(asked)s.") % disk)
    return found


def _name(os: str, known: Knowledge) -> str:
    """Return the system's name, and whose knowledge this is where it is another's."""
    if osinfo.is_known(os):
        return known.name
    return _("%(system)s (as %(nearest)s, the nearest that is known)") % {"system": os, "nearest": known.name}


def _sizes(sizes: Resources) -> str:
    words = []
    if sizes.vcpus:
        words.append(_("%(count)d vCPU") % {"count": sizes.vcpus})
    if sizes.memory:
        words.append(_("%(size)s memory") % {"size": gib(sizes.memory, 2)})
    if sizes.disk:
        words.append(_("%(size)s disk") % {"size": gib(sizes.disk, 2)})
    return ", ".join(words)
