"""Findings about a host's kernel and networks. Not for: finding it out; the others are in `readiness`."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from django.utils.translation import gettext as _

from portal.hosts.findings import Finding

#: What limits of machines need, by the version of control groups.
_NEEDED = {1: ("blkio", "cpu", "cpuset", "memory"), 2: ("cpu", "cpuset", "io", "memory")}
_MOST_SHOWN = 8


def ground(told: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield the findings from what a host told at its enrolment; a host enrolled long ago told less."""
    if "kernel" not in told:
        return
    kernel, networks = told["kernel"], told["networks"]
    yield _control_groups(kernel)
    yield _networks(networks)
    yield _bridges(told["bridges"])
    yield _forwarding(kernel["ip_forward"], networks)
    yield _bridge_rules(kernel["bridge_rules"])


def _unknown(title: str) -> Finding:
    means = _("The host does not tell. That needs SFTP for the portal's user there, and read rights alone.")
    return Finding(title, _("Not known"), means, "unknown")


def _control_groups(kernel: Mapping[str, Any]) -> Finding:
    title, version = _("Control groups"), kernel["cgroup_version"]
    if version is None:
        return _unknown(title)
    there = kernel["cgroup_controllers"] or ()
    missing = [name for name in _NEEDED[version] if name not in there]
    found = _("Version %(version)s: %(names)s") % {"version": version, "names": ", ".join(there)}
    if missing:
        means = _("Limits and shares that need %(names)s have no effect on machines here.")
        mend = _("Turn these controllers on: on the kernel's command line, or in cgroup.subtree_control.")
        return Finding(title, found, means % {"names": ", ".join(missing)}, "warn", mend)
    if version == 1:
        means = _("Limits and shares of machines work. System containers (LXC) need version 2 alone.")
        mend = _("systemd.unified_cgroup_hierarchy=1 on the kernel's command line.")
        return Finding(title, found, means, "good", mend)
    return Finding(title, found, _("Limits and shares of machines work."), "good")


def _listed(names: Sequence[str]) -> str:
    rest = len(names) - _MOST_SHOWN
    shown = ", ".join(names[:_MOST_SHOWN])
    return _("%(names)s and %(rest)s more") % {"names": shown, "rest": rest} if rest > 0 else shown


def _networks(networks: Sequence[Mapping[str, Any]]) -> Finding:
    title = _("Networks")
    active = [network for network in networks if network["active"]]
    if not active:
        means = _("The portal starts its own network with the first machine that is placed here.")
        return Finding(title, _("None is active"), means, "good")
    words = [f"{n['name']} ({n['forward'] or _('isolated')}, {n['bridge']})" for n in active]
    means = _("These run now. The portal makes those of its machines by itself.")
    return Finding(title, _listed(words), means, "good")


def _bridges(bridges: Sequence[str] | None) -> Finding:
    title = _("Bridges")
    if bridges is None:
        means = _("This host's libvirt cannot list its interfaces.")
        return Finding(title, _("Not known"), means, "unknown")
    if not bridges:
        means = _("Machines can be on NAT or isolated networks, but not directly on a LAN.")
        mend = _("To put machines on a LAN, make a bridge on the host that holds its network card.")
        return Finding(title, _("None"), means, "good", mend)
    means = _("A network of the kind \"bridge\" can put machines on one of these.")
    return Finding(title, _listed(bridges), means, "good")


def _forwarding(forward: bool | None, networks: Sequence[Mapping[str, Any]]) -> Finding:
    title = _("Forwarding (ip_forward)")
    if forward is None:
        return _unknown(title)
    if forward:
        return Finding(title, _("On"), _("Machines behind NAT reach what is outside."), "good")
    if any(network["active"] and network["forward"] == "nat" for network in networks):
        means = _("Machines behind NAT reach their host and nothing beyond.")
        mend = _("sysctl -w net.ipv4.ip_forward=1, and the same in /etc/sysctl.d to keep it.")
        return Finding(title, _("Off"), means, "bad", mend)
    means = _("libvirt turns it on when it starts the first NAT network here.")
    return Finding(title, _("Off"), means, "unknown")


def _bridge_rules(rules: bool | None) -> Finding:
    title = _("Rules on bridges (bridge-nf-call-iptables)")
    if rules is None:
        return _unknown(title)
    if rules:
        means = _("Security groups' rules meet what passes between machines on one bridge.")
        mend = _("If machines on a plain bridge cannot talk, look for a FORWARD policy of DROP (Docker's).")
        return Finding(title, _("On"), means, "good", mend)
    means = _("Rules by IP address and port are silently without effect between machines on one bridge.")
    mend = _(
        "modprobe br_netfilter; sysctl -w net.bridge.bridge-nf-call-iptables=1; and the same in "
        "/etc/modules-load.d and /etc/sysctl.d to keep it."
    )
    return Finding(title, _("Off"), means, "bad", mend)
