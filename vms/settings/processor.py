"""Which processor a machine sees and how it is laid out. Not for: how many vCPUs, which take quota."""

from collections.abc import Iterator
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from portal.drivers.types import DomainFeature
from vms.hypervisors import why_not
from vms.settings.abilities import is_emulated, unknown
from vms.settings.model import Choices, Defined, Ground, Setting

#: No mode at all: the emulator's own choice, as libvirt leaves it.
PLAIN = "default"
#: Before the name of a model.
NAMED = "model:"
HOST_MODEL = "host-model"
_MODES: Choices = [
    (PLAIN, gettext_lazy("The hypervisor's plain one")),
    (HOST_MODEL, gettext_lazy("Like the host's, as far as it can be moved")),
    ("host-passthrough", gettext_lazy("The host's own, as it is")),
    ("maximum", gettext_lazy("Everything that the hypervisor can")),
]


def _cpu(defined: Defined) -> Any:
    return defined.get("cpu", {})


def _read_cpu(defined: Defined) -> str:
    cpu = _cpu(defined)
    # A model without a mode is libvirt's `custom`.
    if cpu.get("model") and cpu.get("mode", "custom") == "custom":
        return f"{NAMED}{cpu['model']}"
    return str(cpu.get("mode", PLAIN))


def cpu_of_run(running: Defined, persistent: Defined) -> str:
    """Return the processor that what runs was started with, as `persistent` would be read.

    Of the host's model libvirt makes a custom one at the start, with the vendor, which no model has that is
    chosen by its name.
    """
    value, then, told = _read_cpu(running), _read_cpu(persistent), _cpu(running)
    expanded = value.startswith(NAMED) and told.get("check") == "full" and told.get("vendor")
    return HOST_MODEL if expanded and value != then else value


def _cpu_word(value: str) -> Any:
    return value.removeprefix(NAMED) if value.startswith(NAMED) else dict(_MODES).get(value, value)


def _patch_cpu(_ground: Ground, value: str) -> dict[str, Any]:
    # What libvirt itself fills in is not asked for: a change that is made already would not be told by it.
    if value.startswith(NAMED):
        model = value.removeprefix(NAMED)
        return {"cpu": {"mode": "custom", "match": "exact", "model": model, "migratable": None}}
    bare: dict[str, Any] = {"model": None, "fallback": None, "match": None}
    if value == PLAIN:
        return {"cpu": bare | {"mode": None, "check": None, "migratable": None}}
    return {"cpu": bare | {"mode": value}}


def _cpu_choices(ground: Ground) -> Choices:
    modes = list(ground.can("cpu_modes"))
    # For QEMU, libvirt writes out which model that is; and single features need one to be added to.
    if ground.defined.get("type") not in {"kvm", "qemu"} and not _cpu(ground.defined).get("features"):
        modes.insert(0, PLAIN)
    models = ground.can("cpu_models") if "custom" in modes else ()
    named = [(f"{NAMED}{model}", model) for model in models]
    return [(mode, label) for mode, label in _MODES if mode in modes] + named


def _cpu_lacks(ground: Ground) -> str:
    if ground.able and "host-passthrough" not in ground.can("cpu_modes") and is_emulated(ground):
        return _("The machine's processor is emulated, so the host's own cannot be given to it.")
    return ""


# Topology

#: Every vCPU a processor of its own, as the hypervisor does by itself.
FLAT = "flat"
_PARTS = ("sockets", "cores", "threads")


def _read_topology(defined: Defined) -> str:
    laid = _cpu(defined).get("topology")
    return "x".join(str(laid.get(part, 1)) for part in _PARTS) if laid else FLAT


def _topology_word(value: str) -> str:
    if value == FLAT:
        return _("Each vCPU is a processor of its own")
    sockets, cores, threads = value.split("x")
    words = _("%(sockets)s × %(cores)s × %(threads)s (sockets × cores × threads)")
    return words % {"sockets": sockets, "cores": cores, "threads": threads}


#: More than any hypervisor gives; what others define may say any number.
_MOST_LAID = 1 << 16


def _layouts(vcpus: int) -> Iterator[str]:
    """Yield the ways to lay out that many vCPUs; no processor has more than two threads a core."""
    if vcpus > _MOST_LAID:
        return
    for threads in (1, 2):
        cores = vcpus // threads
        if cores * threads == vcpus:
            each = [number for number in range(1, cores + 1) if cores % number == 0]
            yield from (f"{cores // number}x{number}x{threads}" for number in each)


def _patch_topology(_ground: Ground, value: str) -> dict[str, Any]:
    if value == FLAT:
        return {"cpu": {"topology": None}}
    laid = dict(zip(_PARTS, map(int, value.split("x")), strict=True))
    return {"cpu": {"topology": laid}}


def _topology_choices(ground: Ground) -> Choices:
    values = [FLAT, *_layouts(int(ground.defined.get("vcpus", 1)))]
    return [(value, _topology_word(value)) for value in values]


def _topology_fixed(ground: Ground) -> str:
    if reason := why_not(ground.defined, DomainFeature.TOPOLOGY):
        return reason
    laid = _cpu(ground.defined).get("topology", {})
    if laid.get("dies", 1) != 1 or laid.get("clusters", 1) != 1:
        return _("The processor is laid out in a way that is kept as it is.")
    return ""


CPU = Setting(
    "cpu",
    gettext_lazy("Processor"),
    _read_cpu,
    _patch_cpu,
    _cpu_choices,
    unknown,
    _cpu_lacks,
    _cpu_word,
    hint=gettext_lazy("Systems that are bound to their hardware may ask for their licence again."),
)
TOPOLOGY = Setting(
    "topology",
    gettext_lazy("Layout of the processor"),
    _read_topology,
    _patch_topology,
    _topology_choices,
    _topology_fixed,
    word=_topology_word,
    hint=gettext_lazy(
        "It holds as many vCPUs as the machine can ever have; with a layout, it gets no more than those."
    ),
)
