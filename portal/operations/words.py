"""A frozen request in words, and what changed between two of its revisions. Not for: the what-if of it."""

import base64
import binascii
import difflib
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from portal.core.canonical import canonical_json
from portal.operations.ledger import amount_text
from portal.operations.models import Counter, Operation, RequestRevision

DAY = 86_400


@dataclass(frozen=True)
class Fact:
    """One value of a request; `long` for what has lines and is shown as it is."""

    label: str
    value: str
    long: bool = False


@dataclass(frozen=True)
class Difference:
    """What a revision changed: two values, or of a long one its lines with '+', '-' or ' ' before each."""

    label: str
    before: str
    after: str
    lines: Sequence[tuple[str, str]] = field(default_factory=tuple)


def not_finished(operation: Operation) -> str:
    """Return that an operation is not finished and keeps others waiting, in a sentence."""
    return _("%(operation)s is not finished; wait for its end.") % {"operation": operation}


def facts(frozen: Mapping[str, Any]) -> list[Fact]:
    """Return what was asked, in the order in which people read it."""
    pinned = frozen["pinned"]
    sizes = size_facts(frozen["sizes"], pinned.get("now", {}))
    sizes += [*_balloon(frozen), *_each(frozen["sizes"])]
    return [*_identity(pinned), *sizes, *_surroundings(pinned), *_cloud(pinned)]


def size_facts(sizes: Mapping[str, int], now: Mapping[str, int] | None = None) -> list[Fact]:
    """Return the sizes with their units, and what they are `now` where that is another."""
    order = [*SIZES, *sorted(set(sizes) - set(SIZES))]
    found = []
    for name in (name for name in order if name in sizes):
        text = size_text(name, sizes[name])
        before = (now or {}).get(name, sizes[name])
        changes = before != sizes[name]
        found.append(Fact(size_label(name), f"{size_text(name, before)} → {text}" if changes else text))
    return found


def _balloon(frozen: Mapping[str, Any]) -> list[Fact]:
    """Return what a guest is left of its memory, where that is not all, or was not."""
    sizes, pinned = frozen["sizes"], frozen["pinned"]
    if "memory_now" not in pinned:
        return []
    now = min(pinned["memory_now"], sizes["memory"] // sizes.get("machines", 1))
    return size_facts({"memory_now": now}, {"memory_now": pinned.get("memory_was", now)})


def _each(sizes: Mapping[str, int]) -> list[Fact]:
    """Return what each of several machines gets: the sizes of their request are those of all together."""
    count = sizes.get("machines", 1)
    if count < 2:
        return []
    shares = [(name, sizes[name] // count) for name in ("vcpu", "memory", "disk") if name in sizes]
    texts = [f"{size_label(name)} {size_text(name, share)}" for name, share in shares]
    return [Fact(_("Each of them"), ", ".join(texts))]


#: The sizes that people know, in their order.
SIZES = ("vcpu", "memory", "disk", "lease")


def size_label(name: str) -> str:
    """Return what people call a size."""
    if name == "lease":
        return _("Lease")
    if name == "memory_now":
        return _("Memory now")
    return str(Counter.Resource(name).label) if name in Counter.Resource.values else name


def size_text(name: str, value: int) -> str:
    """Return a size with its unit."""
    if name != "lease":
        return amount_text(Counter.Resource.MEMORY if name == "memory_now" else name, value)
    days = value // DAY
    return ngettext("%(days)d day", "%(days)d days", days) % {"days": days}


def why_label() -> str:
    """Return what the reason of a request is called."""
    return _("What for")


def _identity(pinned: Mapping[str, Any]) -> list[Fact]:
    labels = {
        "name": _("Name"),
        "original": _("Clone of"),
        "drive": _("Which disk"),
        "domain": _("Domain"),
        "owner": _("Owner"),
        "why": why_label(),
        "item": _("Made from"),
        "flavour": _("Size"),
    }
    found = [Fact(label, str(pinned[key])) for key, label in labels.items() if pinned.get(key)]
    image = pinned.get("image")
    if isinstance(image, dict):
        found.append(Fact(_("Image"), _image(image)))
    return found


def _image(pinned: Mapping[str, Any]) -> str:
    """Return an image's title, and its digest where there is one: one that is being made has none."""
    digest = pinned.get("sha256", "")[:12]
    return f"{pinned['title']} ({digest})" if digest else str(pinned["title"])


def _surroundings(pinned: Mapping[str, Any]) -> list[Fact]:
    found = []
    if "network" in pinned:
        found.append(Fact(_("Network"), pinned["network"].get("name", "")))
    if "install" in pinned:
        answers = pinned["install"]["answers"]
        found.append(Fact(_("Installation"), answers["template"] if answers else _("By hand")))
        if drivers := pinned["install"].get("drivers"):
            found.append(Fact(_("CD of drivers"), _image(drivers)))
        if answers:
            found.append(Fact(_("What the installer is told"), answers["text"], long=True))
    if "virtualization" in pinned:
        how = pinned["virtualization"]
        devices = {
            "paravirtual": _("Paravirtualization: made for virtual machines"),
            "emulated": _("Full virtualization: as of a real computer"),
        }
        processors = {
            "best": _("Best available"),
            "kvm": _("Hardware-assisted virtualization only (KVM)"),
            "qemu": _("Emulated in software only"),
        }
        found.append(Fact(_("Devices"), devices.get(how["devices"], how["devices"])))
        found.append(Fact(_("Processor"), processors.get(how["accelerator"], how["accelerator"])))
    if "profile" in pinned:
        boards = {
            "uefi": _("UEFI"),
            "uefi-tpm": _("UEFI, a TPM 2.0"),
            "secure": _("UEFI with Secure Boot"),
            "secure-tpm": _("UEFI with Secure Boot, a TPM 2.0"),
            "tpm": _("BIOS, a TPM 2.0"),
            "windows": _("For Windows: UEFI with Secure Boot, a TPM 2.0"),
            "windows-bios": _("For Windows, with a BIOS"),
        }
        found.append(Fact(_("Board"), boards.get(pinned["profile"], pinned["profile"])))
    if "further" in pinned:
        each = ", ".join(amount_text(Counter.Resource.DISK, size) for size in pinned["further"])
        found.append(Fact(_("Further disks of its image, each"), each))
    # What a change of settings sets: label, before, after.
    for label, before, after in pinned.get("settings", ()):
        words = f"{before or _('none')} → {after or _('none')}"
        found.append(Fact(label, words, long="\n" in words))
    if "until" in pinned:
        # What an extension comes on top of.
        ends = timezone.localtime(datetime.fromisoformat(pinned["until"]))
        found.append(Fact(_("Lease ends without it"), date_format(ends, "j M Y H:i")))
    if "cost_month" in pinned:
        found.append(Fact(_("Cost a month"), str(pinned["cost_month"])))
    return found


def _cloud(pinned: Mapping[str, Any]) -> list[Fact]:
    if "cloud" not in pinned:
        return []
    cloud = pinned["cloud"]
    found = [Fact(_("Login user"), cloud["user"])] if cloud["user"] else []
    keys = "\n".join(key_in_words(key) for key in cloud["ssh_keys"])
    found.append(Fact(_("SSH keys"), keys or _("none"), long="\n" in keys))
    if cloud["packages"]:
        found.append(Fact(_("Packages"), ", ".join(cloud["packages"])))
    if cloud["user_data"]:
        found.append(Fact(_("User-data"), cloud["user_data"], long=True))
    return found


def key_in_words(key: str) -> str:
    """Return a public key as people compare them: its comment, type and fingerprint, as ssh-keygen -l."""
    kind, _space, rest = key.partition(" ")
    body, _space, comment = rest.partition(" ")
    try:
        digest = hashlib.sha256(base64.b64decode(body, validate=True)).digest()
    except (binascii.Error, ValueError):
        return key
    fingerprint = base64.b64encode(digest).decode().rstrip("=")
    return " ".join(filter(None, (comment, f"SHA256:{fingerprint}", f"({kind})")))


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Difference]:
    """Return what is different in words. Never empty for two requests that are not the same."""
    old, new = ({fact.label: fact for fact in facts(frozen)} for frozen in (before, after))
    found = []
    for label in [*old, *(label for label in new if label not in old)]:
        then, now = old.get(label), new.get(label)
        if then is not None and now is not None and then.value == now.value:
            continue
        texts = (then.value if then else "", now.value if now else "")
        long = any(fact is not None and fact.long for fact in (then, now))
        found.append(Difference(label, *texts, lines=compared(*texts) if long else ()))
    if not found and canonical_json(dict(before)) != canonical_json(dict(after)):
        # What people see the same may still be another network or another user-data.
        found.append(Difference(_("Details"), _("as they were"), _("changed in the catalogue meanwhile")))
    return found


def compared(before: str, after: str) -> list[tuple[str, str]]:
    """Return the lines of two texts as `Difference.lines` has them."""
    found = difflib.ndiff(before.splitlines(), after.splitlines())
    return [(line[:1], line[2:]) for line in found if not line.startswith("?")]


@dataclass(frozen=True)
class Step:
    """A revision with what it changed."""

    revision: RequestRevision
    differences: Sequence[Difference]


def history(revisions: Sequence[RequestRevision]) -> list[Step]:
    """Return `revisions`, in the order of their number, each with what it changed of the one before."""
    steps = []
    for number, revision in enumerate(revisions):
        changed = differences(revisions[number - 1].frozen, revision.frozen) if number else []
        steps.append(Step(revision, changed))
    return steps
