"""What a machine that runs gets at its next start alone: its persistent definition beside the running one.

Compared is what people set, value by value. What a hypervisor fills in by itself when a domain starts is not:
aliases, addresses, controllers, ports, sockets, labels, the model behind the host's processor, the file of a
firmware, and how far a guest heeds its balloon. Of elements that the portal does not read, whoever read the
definitions wrote down what differs (`Definition.observed_unread`). Not for: asking a host.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from networks.models import Network
from portal.core.errors import Denied
from portal.core.templatetags.gatehouse import gib
from portal.drivers.types import LEFT
from portal.hosts.models import ImageAttachment
from vms import settings
from vms.changes.devices import bandwidth
from vms.changes.devices.limits import differences as limits_differ
from vms.changes.devices.media import seed_path
from vms.changes.devices.nics import mac_of
from vms.elements import differing, pairs
from vms.hostdevice_keys import Told, keys_of, told_of
from vms.models import Definition, VirtualMachine
from vms.observer import OFF
from vms.settings import Defined, Ground
from vms.settings.board import FIRMWARE, firmware_of_run
from vms.settings.booting import BOOT, boot_places, boot_words
from vms.settings.disks import CACHE, TRIM, drivers, patch_drivers, target_of
from vms.settings.model import Setting, devices
from vms.settings.order import ORDER
from vms.settings.processor import CPU, cpu_of_run


@dataclass(frozen=True)
class Row:
    """What waits, as people read it: '' before or after is none.

    A setting of the page of settings has its name as `setting` and what runs as `value`; `fixed` says why it
    cannot be set back to that, '' when it can.
    """

    label: str
    before: str
    after: str
    setting: str = ""
    value: str = ""
    fixed: str = ""


@dataclass(frozen=True)
class Pending:
    """What waits for the next start; `others` are elements that differ and that no page of a machine sets."""

    rows: list[Row] = field(default_factory=list)
    others: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        """How many things wait."""
        return len(self.rows) + len(self.others)

    @property
    def others_in_words(self) -> str:
        """What else differs, in a sentence; empty for nothing."""
        if not self.others:
            return ""
        words = ngettext(
            "%(count)d other element differs: %(names)s",
            "%(count)d other elements differ: %(names)s",
            len(self.others),
        )
        return words % {"count": len(self.others), "names": ", ".join(self.others)}

    @property
    def settable(self) -> list[Row]:
        """What can be set back on the page of settings."""
        return [row for row in self.rows if row.setting and not row.fixed]

    @property
    def back(self) -> list[list[str]]:
        """To what those are set back: what tells that somebody saw these and no others."""
        return [[row.setting, row.value] for row in self.settable]


@dataclass(frozen=True)
class Names:
    """What people call things that a definition names in its own way."""

    devices: list[Told] = field(default_factory=list)
    #: Titles by libvirt's name of a network, and by the path of a medium.
    networks: Mapping[str, str] = field(default_factory=dict)
    media: Mapping[str, str] = field(default_factory=dict)


def look(machine: VirtualMachine, found: Definition | None, names: Names | None = None) -> Pending:
    """Return what waits for the next start of a machine, as its definitions were seen last; no query.

    `found` is what `noted.of` returns. Of a machine that does not run nothing waits.
    """
    if found is None or machine.observed_state in OFF:
        return Pending()
    running, persistent = found.observed_running, found.observed_persistent
    if not running or persistent is None:
        return Pending()
    ground = settings.ground_of(persistent, machine.host.readiness)
    found_names = names or Names(told_of(machine.host))
    return compare(running, ground, found_names, found.observed_unread)


def names_for(machine: VirtualMachine) -> Names:
    """Return what things of a machine are called; three queries."""
    copies = ImageAttachment.objects.filter(pool__host=machine.host_id).select_related("image")
    seed = {path: _("the machine's own seed for cloud-init") for path in [seed_path(machine)] if path}
    return Names(
        told_of(machine.host),
        {network.spec.name: network.title for network in Network.objects.all()},
        {copy.path: copy.image.label for copy in copies} | seed,
    )


def compare(
    running: Defined, ground: Ground, names: Names, unread: Mapping[str, Sequence[str]] | None = None
) -> Pending:
    """Return what differs between what runs and the persistent definition of `ground`.

    `unread` is what differs in elements that the portal does not read (`Definition.observed_unread`).
    """
    sides = (running, ground.defined)
    rows = [
        *_sizes(*sides),
        *_settings(running, ground),
        *_disks(*sides, names),
        *_cards(*sides, names),
        *_host_devices(*sides, names),
        *_unread(unread or {}),
    ]
    return Pending(rows, sorted({*differing(*sides, names.devices)}))


# Sizes


def _sizes(running: Defined, persistent: Defined) -> Iterator[Row]:
    most, wanted = (side.get("vcpus", 1) for side in (running, persistent))
    now, then = running.get("current_vcpus", most), persistent.get("current_vcpus", wanted)
    if now != then:
        yield Row(_("vCPUs"), str(now), str(then))
    if most != wanted and (most, wanted) != (now, then):
        yield Row(_("vCPUs at most while it runs"), str(most), str(wanted))
    most, wanted = (side.get("memory_bytes", 0) for side in (running, persistent))
    now, then = running.get("current_memory_bytes", most), persistent.get("current_memory_bytes", wanted)
    plain = (most, wanted) == (now, then)
    # Below the ceiling that it was started with, a guest has what it makes of its balloon: nothing waits.
    if then > most or (plain and most != wanted):
        yield Row(_("Memory"), gib(now, 2), gib(then, 2))
    if most != wanted and not plain:
        yield Row(_("Memory at most while it runs"), gib(most, 2), gib(wanted, 2))


# Settings


def as_run(setting: Setting, running: Defined, persistent: Defined) -> str:
    """Return a setting of what runs, as it was before the hypervisor filled in what it chose at the start."""
    if setting is CPU:
        return cpu_of_run(running, persistent)
    return firmware_of_run(running, persistent) if setting is FIRMWARE else setting.read(running)


def _settings(running: Defined, ground: Ground) -> Iterator[Row]:
    for setting in settings.SETTINGS:
        if not setting.at_next_start:
            continue
        if setting in (CACHE, TRIM):
            yield from _driver_rows(setting, running, ground)
            continue
        value, then = as_run(setting, running, ground.defined), setting.read(ground.defined)
        before, after = setting.in_words(value), setting.in_words(then)
        if setting is BOOT:
            value = " ".join(boot_places(running))
            then = " ".join(boot_places(ground.defined))
            before, after = boot_words(running), boot_words(ground.defined)
        if value != then:
            row = Row(str(setting.label), before, after, setting.name, value)
            yield replace(row, fixed=_why_not_back(setting, running, ground))


def _driver_rows(setting: Setting, running: Defined, ground: Ground) -> Iterator[Row]:
    """Yield how disks that are on both sides are written, each by itself."""
    runs, waits = drivers(running), drivers(ground.defined)
    for target in waits:
        if target in runs:
            before, after = (_way(setting, side[target]) for side in (runs, waits))
            if before != after:
                words = _("%(setting)s: %(disk)s") % {"setting": setting.label, "disk": target}
                now, then = setting.in_words(before), setting.in_words(after)
                yield Row(words, now, then, setting.name, before, setting.fixed(ground))


def _way(setting: Setting, driver: Any) -> str:
    """Return the value of a setting of disks that one driver has."""
    return setting.read({"devices": {"disks": [{"driver": driver}]}})


def _why_not_back(setting: Setting, running: Defined, ground: Ground) -> str:
    """Return why a setting cannot be set back to what runs, '' when it can."""
    moved = ORDER.read(running) != ORDER.read(ground.defined)
    if setting is BOOT and moved:
        # It comes and goes with the order of the devices: libvirt takes one of the two alone.
        setting = ORDER
    try:
        settings.check(setting, ground, as_run(setting, running, ground.defined))
    except Denied as denied:
        return denied.reason
    return ""


def patch_back(running: Defined, ground: Ground) -> dict[str, Any]:
    """Return the change of the persistent definition by which its settings are what runs.

    Settings that cannot be set back stay as they wait; empty when nothing can.
    """
    able = {row.setting for row in _settings(running, ground) if not row.fixed}
    patch: dict[str, Any] = {}
    for setting in settings.SETTINGS:
        if setting.name in able:
            patch = settings.merged(patch, _part_back(setting, running, ground))
    return patch


def _part_back(setting: Setting, running: Defined, ground: Ground) -> dict[str, Any]:
    if setting is BOOT:
        there, wanted = boot_places(ground.defined), boot_places(running)
        places = [{"dev": place} for place in wanted]
        return {"os": {"boot": [*places, *[None] * (len(there) - len(wanted))]}}
    if setting in (CACHE, TRIM):
        runs, name = drivers(running), "cache" if setting is CACHE else "discard"

        def change(target: str) -> dict[str, Any]:
            return {name: runs[target].get(name)} if target in runs else {}

        return patch_drivers(ground, change)
    if setting.name in _DEVICES_BACK:
        return _devices_back(*_DEVICES_BACK[setting.name], running, ground)
    patch = setting.patch(ground, as_run(setting, running, ground.defined))
    if setting is ORDER and boot_places(running):
        # Its row for the kinds of devices brings those back.
        return {"devices": patch["devices"]}
    return {**patch, "traces": {"firmware": _trace("firmware", running)}} if setting is FIRMWARE else patch


#: Settings that make a device of their own: back comes the one that runs.
_DEVICES_BACK = {"tpm": ("tpms", "tpm"), "video": ("videos", ""), "watchdog": ("watchdogs", "")}


def _devices_back(kind: str, trace: str, running: Defined, ground: Ground) -> dict[str, Any]:
    pairs = zip_longest(ground.devices(kind), devices(running, kind))
    places = [None if wanted is None else {**dict.fromkeys(there or {}), **wanted} for there, wanted in pairs]
    traces = {"traces": {trace: _trace(trace, running)}} if trace else {}
    return {"devices": {kind: places}, **traces}


def _trace(name: str, running: Defined) -> str | None:
    """Return what was on the host for earlier definitions when this one started; what it has is kept."""
    return LEFT if (running.get("traces") or {}).get(name) == LEFT else None


# Disks and drives


def _source(disk: Any) -> tuple[str, ...]:
    """Return where a disk's bytes are; of a volume of a pool not the file that libvirt found it in."""
    source = disk.get("source") or {}
    names = ("pool", "volume") if source.get("pool") else ("protocol", "name", "file", "dev", "dir")
    return tuple(str(source[name]) for name in names if source.get(name))


def _disks(running: Defined, persistent: Defined, names: Names) -> Iterator[Row]:
    for target, runs, waits in pairs("disks", target_of, running, persistent):
        is_drive = (waits or runs).get("device") in ("cdrom", "floppy")
        label = (_("Drive %(target)s") if is_drive else _("Disk %(target)s")) % {"target": target}
        before, after = (_medium(one, is_drive, names) for one in (runs, waits))
        if runs is None or waits is None:
            yield Row(label, before, after)
            continue
        if _source(runs) != _source(waits):
            if before == after:
                before, after = (":".join(_source(one)) for one in (runs, waits))
            yield Row(label, before, after)
        before, after = (str((one.get("target") or {}).get("bus", "")) for one in (runs, waits))
        if before != after:
            yield Row(_("Bus of %(target)s") % {"target": target}, before, after)
        limits = (one.get("limits") or {} for one in (runs, waits))
        for limit in limits_differ(*limits):
            yield Row(f"{label}: {limit.label}", limit.before, limit.after)


def _medium(disk: Any, is_drive: bool, names: Names) -> str:
    """Return in words what a disk or a drive holds; '' where there is none."""
    if disk is None:
        return ""
    source = _source(disk)
    if not source:
        return _("empty") if is_drive else _("without a file")
    return names.media.get(source[-1]) or source[-1].rpartition("/")[2] or source[-1]


# Network cards


def _cards(running: Defined, persistent: Defined, names: Names) -> Iterator[Row]:
    for mac, runs, waits in pairs("interfaces", mac_of, running, persistent):
        told = {"mac": mac}
        before, after = (_network(one, names) for one in (runs, waits))
        if runs is None or waits is None or not _is_same_net(runs, waits):
            yield Row(_("Network card %(mac)s") % told, before, after)
        if runs is None or waits is None:
            continue
        if runs.get("model") and waits.get("model") and runs["model"] != waits["model"]:
            yield Row(_("Model of %(mac)s") % told, str(runs["model"]), str(waits["model"]))
        before, after = (_("down") if one.get("link") == "down" else _("up") for one in (runs, waits))
        if before != after:
            yield Row(_("Link of %(mac)s") % told, before, after)
        # What its network limits a card to is as well at each start.
        if not bandwidth.is_of_network(runs, waits):
            for limit in bandwidth.differences(*map(bandwidth.of_card, (runs, waits))):
                yield Row(_("Network card %(mac)s") % told + f": {limit.label}", limit.before, limit.after)


def _net(card: Any) -> tuple[str, ...]:
    """Return what a card is on; of a network not the bridge or device that libvirt found for it."""
    source = card.get("source") or {}
    names = ("network", "portgroup") if source.get("network") else ("bridge", "dev", "mode")
    return tuple(str(source.get(name, "")) for name in names)


def _is_same_net(runs: Any, waits: Any) -> bool:
    """Tell whether a card is on what it will be on, as far as what runs says it.

    Of a network that gives each card a function of a device (<forward mode='hostdev'>) libvirt prints the
    function alone, and no word of the network: better nothing is said than something that is not so.
    """
    is_function = runs.get("type") == "hostdev" and waits.get("type") == "network"
    return is_function or _net(runs) == _net(waits)


def _network(card: Any, names: Names) -> str:
    if card is None:
        return ""
    place = next(filter(None, _net(card)), "")
    return names.networks.get(place) or place or _("on no network")


# Devices of the host


def _host_devices(running: Defined, persistent: Defined, names: Names) -> Iterator[Row]:
    labels = {one["key"]: str(one["label"]) for one in names.devices}
    runs, waits = (Counter(keys_of(side, names.devices)) for side in (running, persistent))
    for key in {**waits, **runs}:
        if key and runs[key] != waits[key]:
            label = labels.get(key, key)
            sides = (label if side[key] else "" for side in (runs, waits))
            yield Row(_("Device of the host"), *sides)


# What the portal does not read


def _unread(unread: Mapping[str, Sequence[str]]) -> Iterator[Row]:
    for element, (before, after) in unread.items():
        name = element.rpartition("/")[2]
        yield Row(_("Other settings: %(element)s") % {"element": f"<{name}>"}, before, after)
