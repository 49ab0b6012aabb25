"""A machine's screen and its channel to the guest's agent."""

from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from portal.drivers.types import DomainFeature
from vms.hypervisors import why_not
from vms.settings.abilities import unknown
from vms.settings.model import Choices, Defined, Ground, Plugged, Setting, devices, word_of

# Screen

_VIDEOS: Choices = [
    ("virtio", gettext_lazy("virtio, made for virtual machines")),
    ("vga", gettext_lazy("VGA, which every system knows")),
    ("qxl", gettext_lazy("QXL, for SPICE")),
    ("bochs", gettext_lazy("Bochs, simple and for UEFI")),
    ("cirrus", gettext_lazy("Cirrus, for very old systems")),
    ("vmvga", gettext_lazy("VMware's")),
    ("ramfb", gettext_lazy("ramfb, a bare picture for UEFI")),
    ("xen", gettext_lazy("Xen's own")),
    ("none", gettext_lazy("No screen")),
]
#: Kinds of memory that only one model has, and libvirt refuses to others.
_QXL_MEMORY = ("ram_kib", "vgamem_kib", "vram64_kib")


def _read_video(defined: Defined) -> str:
    found = devices(defined, "videos")
    return str(found[0].get("model", "")) if found else "none"


def _patch_video(ground: Ground, value: str) -> dict[str, Any]:
    now = (ground.devices("videos") or [{}])[0]
    gone: dict[str, Any] = {name: None for name in _QXL_MEMORY if name in now and value != "qxl"}
    return {"devices": {"videos": [{**gone, "model": value}]}}


def _video_fixed(ground: Ground) -> str:
    if len(ground.devices("videos")) > 1:
        return _("The machine has several screens, which are kept as they are.")
    return unknown(ground)


def _video_choices(ground: Ground) -> Choices:
    return [(name, label) for name, label in _VIDEOS if name in ground.can("videos")]


# The guest's agent

AGENT = "org.qemu.guest_agent.0"
ON, OFF = "on", "off"
_AGENTS: Choices = [(ON, gettext_lazy("Connected")), (OFF, gettext_lazy("Not connected"))]


def _agents(defined: Defined) -> list[bool]:
    """Return of each channel whether the agent listens to it."""
    return [_is_agents(one) for one in devices(defined, "channels")]


def _is_agents(channel: Any) -> bool:
    return bool((channel.get("target") or {}).get("name") == AGENT)


def _read_agent(defined: Defined) -> str:
    return ON if any(_agents(defined)) else OFF


def _patch_agent(ground: Ground, value: str) -> dict[str, Any]:
    kept: list[Any] = [None if value == OFF and agent else {} for agent in _agents(ground.defined)]
    if value == ON:
        kept.append({"type": "unix", "target": {"type": "virtio", "name": AGENT}})
    return {"devices": {"channels": kept}}


def _agent_fixed(ground: Ground) -> str:
    return why_not(ground.defined, DomainFeature.AGENT)


VIDEO = Setting(
    "video",
    gettext_lazy("Screen"),
    _read_video,
    _patch_video,
    _video_choices,
    _video_fixed,
    word=word_of(_VIDEOS),
    hint=gettext_lazy("A system without a driver for it shows nothing, or very slowly."),
)
AGENT_CHANNEL = Setting(
    "agent",
    gettext_lazy("Guest agent"),
    _read_agent,
    _patch_agent,
    lambda _ground: _AGENTS,
    _agent_fixed,
    word=word_of(_AGENTS),
    hint=gettext_lazy(
        "By it the host asks the guest for its addresses and tells it of new vCPUs; a program in the guest "
        "must answer."
    ),
    plugged=Plugged(
        "channels",
        _is_agents,
        comes=gettext_lazy(
            "The machine is on: it comes at once where the hypervisor can, else with the next start."
        ),
        goes=gettext_lazy(
            "The machine is on: it goes at once where the hypervisor can, else with the next start."
        ),
    ),
)
