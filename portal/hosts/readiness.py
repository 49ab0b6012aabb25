"""What a host is fit for, one finding a line. Not for: finding it out, which enrolment and the watcher do."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

from django.utils import timezone
from django.utils.translation import gettext as _

from portal.core.templatetags.gatehouse import gib
from portal.drivers.types import XEN, Accelerator, VolumeVerb, can
from portal.hosts.findings import Finding
from portal.hosts.ground import ground
from portal.hosts.models import Health, Host
from portal.operations.messages import sentence

#: A watched host is seen each second; one unseen for longer than this has no watcher.
UNWATCHED = timedelta(seconds=30)
FULL_SHARE = 0.1
#: The oldest versions of libvirt, QEMU and Xen.
_TESTED, _TESTED_XEN = (9_000_000, 7_000_000), 4_017_000


def health(host: Host) -> tuple[str, str]:
    """Return the word and the tone of a host's health."""
    if host.maintenance:
        return _("Maintenance"), "warn"
    if host.observed_health == Health.STALE:
        return _("Does not answer"), "bad"
    if host.observed_health == Health.NEW or host.observed_at is None:
        return _("Not seen yet"), "unknown"
    if timezone.now() - host.observed_at > UNWATCHED:
        return _("Not watched"), "warn"
    return _("Up"), "good"


def accelerator(host: Host) -> tuple[str, str]:
    """Return in words how guests run there, and its tone."""
    if host.accelerator == Accelerator.KVM:
        return _("Hardware-assisted (KVM)"), "good"
    if host.accelerator == Accelerator.EMULATION:
        return _("Emulated processor (slow)"), "warn"
    if host.accelerator == Accelerator.XEN:
        return _("Xen"), "good"
    return _("Not proven yet"), "unknown"


def report(host: Host) -> list[Finding]:
    """Return the findings, from whether it answers to what it is made of."""
    findings = [_observed(host), _proof(host)]
    told = host.readiness
    if told:
        findings.append(_bridge(host))
        # Xen hides all this from the host's own domain.
        findings += [] if host.is_xen else [_flag(told), _offered(host, told)]
        findings += _versions(told["host"])
        findings += [] if host.is_xen else [_iommu(told), _guard(told)]
    return [*findings, *_pools(host), *ground(told)]


def _observed(host: Host) -> Finding:
    word, tone = health(host)
    if host.observed_health == Health.STALE:
        return Finding(
            _("Health"),
            word,
            _("Its machines may run well, but nobody knows. They are shown as unknown, and nothing is lost."),
            "bad",
            _ways_back(host),
            host.observed_reason,
        )
    if word == _("Not watched"):
        mend = _("Start the watcher: manage.py watch.")
        return Finding(_("Health"), word, _("What is shown here is old."), "warn", mend)
    if tone == "unknown":
        return Finding(_("Health"), word, _("It takes no machines until it was seen."), tone)
    means = _("It answers the watcher.")
    return Finding(_("Health"), _("Up") if host.observed_health == Health.UP else word, means, "good")


def _ways_back(host: Host) -> str:
    # What says no more than that nobody answered is best met by looking at the host itself.
    if host.observed_code in {"", "host_unreachable", "call_timeout"}:
        return _("Check the host's power, its network, and that libvirtd runs there.")
    return sentence(host.observed_code)


def _proof(host: Host) -> Finding:
    title, (word, tone) = _("How guests run"), accelerator(host)
    if host.accelerator == Accelerator.KVM:
        means = _(
            "A test guest booted at the processor's own speed. It gives hardware-assisted virtualization, "
            "with paravirtual or emulated devices, and can emulate the processor as well."
        )
        return Finding(title, word, means, tone, evidence=host.proof)
    if host.accelerator == Accelerator.EMULATION:
        means = _(
            "Every machine works, with paravirtual or emulated devices, but many times slower than with KVM: "
            "it gives no hardware-assisted virtualization."
        )
        mend = _("Turn on virtualization in the firmware, load the kvm module, then prove again.")
        return Finding(title, word, means, tone, mend, host.proof)
    if host.accelerator == Accelerator.XEN:
        means = _(
            "The portal builds no machines on Xen. Those that others made here can be adopted, and then "
            "watched, started, stopped, changed and opened by their serial console."
        )
        return Finding(title, word, means, tone, evidence=host.proof)
    means = _("No test guest has booted, so no machine is placed here.")
    return Finding(title, word, means, "bad", _("Read the last operation below, then prove again."))


def _bridge(host: Host) -> Finding:
    title = _("Making networks")
    if host.bridges:
        means = _("It can make networks that machines share.")
        return Finding(title, _("Shared ones and one's own"), means, "good", evidence=host.bridge_proof)
    means = _("Each machine gets a network of its own, and machines do not reach each other.")
    mend = _("Let libvirt run as root with the right to make bridges, then prove again.")
    return Finding(title, _("One's own only"), means, "warn", mend, host.bridge_proof)


def _flag(told: Mapping[str, Any]) -> Finding:
    title, flag = _("Processor"), told["virtualization_flag"]
    model = f"{told['cpu_vendor']} {told['cpu_model']} ({told['arch']})".strip()
    if flag:
        means = _("The processor can run guests by itself (%(flag)s).") % {"flag": flag}
        return Finding(title, model, means, "good")
    mend = _("Turn on VT-x or AMD-V in the firmware, or nested virtualization if this host is a guest.")
    return Finding(title, model, _("It shows no virtualization flag."), "warn", mend)


def _offered(host: Host, told: Mapping[str, Any]) -> Finding:
    title = _("KVM")
    if not told["kvm_offered"]:
        mend = _("Load kvm_intel or kvm_amd and check that /dev/kvm is there for the kvm group.")
        return Finding(title, _("Not offered"), _("libvirt would start no KVM guest."), "warn", mend)
    if host.accelerator == Accelerator.KVM:
        return Finding(title, _("Offered and proven"), _("What libvirt says is true."), "good")
    means = _("libvirt offers it, but no test guest booted on it; the portal does not use it.")
    mend = _("If this host is itself a virtual machine, mend nested virtualization below it.")
    return Finding(title, _("Offered, not proven"), means, "warn", mend, host.proof)


def _version(number: int) -> str:
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"


def _versions(told: Mapping[str, Any]) -> Iterator[Finding]:
    pairs = (("libvirt", told["libvirt_version"]), (told["hypervisor"], told["hypervisor_version"]))
    tested = (_TESTED[0], _TESTED_XEN if told["hypervisor"] == XEN else _TESTED[1])
    for (title, version), oldest in zip(pairs, tested, strict=True):
        if version >= oldest:
            yield Finding(title, _version(version), _("A version that the portal is tested with."), "good")
        else:
            means = _("Older than what the portal is tested with (%(version)s).")
            mend = _("Upgrade the host's packages.")
            yield Finding(title, _version(version), means % {"version": _version(oldest)}, "warn", mend)


def _iommu(told: Mapping[str, Any]) -> Finding:
    if told["iommu"]:
        return Finding("IOMMU", _("On"), _("Devices can be handed to guests safely."), "good")
    found = _("Off") if told["iommu"] is False else _("The host does not say")
    means = _("No device can be handed to a guest. Ordinary machines need none.")
    return Finding("IOMMU", found, means, "unknown", _("intel_iommu=on on the kernel's command line."))


def _guard(told: Mapping[str, Any]) -> Finding:
    title = _("Security driver")
    models = [model for model in told["security_models"] if model not in {"none", "dac"}]
    if models:
        return Finding(title, ", ".join(models), _("Each guest is confined by the kernel."), "good")
    means = _("A guest that breaks out of its emulator is held back by file permissions alone.")
    return Finding(title, _("None"), means, "warn", _("Install AppArmor or SELinux on the host."))


def _pools(host: Host) -> Iterator[Finding]:
    attachments = list(host.pools.select_related("pool"))
    if not attachments:
        means = _("There is no place for disks.")
        yield Finding(_("Storage pool"), _("None"), means, "bad", _("Prove again; read the operation."))
    for attachment in attachments:
        total, free = attachment.observed_capacity, attachment.observed_available
        found = _("%(free)s free of %(total)s in %(path)s") % {
            "free": gib(free),
            "total": gib(total),
            "path": attachment.place,
        }
        title = _("Pool %(name)s") % {"name": attachment.pool.name}
        if not attachment.observed_active:
            means = _("Nothing is built in it, and what lies in it cannot be changed.")
            yield Finding(title, _("Stopped"), means, "bad", _("Start it on its page, under Storage."))
        elif not can(attachment.observed_kind, VolumeVerb.CREATE):
            means = _("Nothing is made in it: what it has is its server's matter.")
            yield Finding(title, found, means, "good")
        elif free >= total * FULL_SHARE and total:
            yield Finding(title, found, _("There is room for disks."), "good")
        else:
            yield Finding(title, found, _("Nearly full."), "warn", _("Free space or move machines."))
