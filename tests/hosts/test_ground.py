"""Findings about a host's kernel and networks."""

import pytest

from portal.hosts.ground import ground

NAT = {"name": "gatehouse-nat", "uuid": "x", "bridge": "gatehouse0", "active": True, "forward": "nat"}
GOOD = {
    "cgroup_version": 2,
    "cgroup_controllers": ["cpu", "cpuset", "io", "memory"],
    "ip_forward": True,
    "bridge_rules": True,
}


def findings(bridges=("br0",), networks=(NAT,), **kernel):
    told = {"kernel": GOOD | kernel, "networks": networks, "bridges": bridges}
    return {finding.title.split(" (")[0]: finding for finding in ground(told)}


def test_a_host_in_order_has_nothing_to_mend():
    assert {finding.tone for finding in findings().values()} == {"good"}


@pytest.mark.parametrize(
    ("changes", "title", "tone", "word"),
    [
        ({"bridge_rules": False}, "Rules on bridges", "bad", "br_netfilter"),
        ({"ip_forward": False}, "Forwarding", "bad", "ip_forward=1"),
        ({"ip_forward": False, "networks": ()}, "Forwarding", "unknown", ""),
        ({"cgroup_controllers": ["cpu"]}, "Control groups", "warn", "controllers"),
        ({"cgroup_version": 1, "cgroup_controllers": ["blkio", "cpu", "cpuset", "memory"]},
         "Control groups", "good", "unified"),
        ({"bridges": ()}, "Bridges", "good", "bridge"),
        ({"bridges": None}, "Bridges", "unknown", ""),
    ],
)  # fmt: skip
def test_each_trouble_says_what_it_means_and_how_to_mend_it(changes, title, tone, word):
    """Red when a rule that is without effect is told as good."""
    finding = findings(**changes)[title]
    assert finding.tone == tone and word in finding.mend and finding.means


def test_what_the_host_does_not_tell_is_not_known():
    """Red when None is taken for off."""
    unknown = {"cgroup_version": None, "cgroup_controllers": None, "ip_forward": None, "bridge_rules": None}
    found = findings(**unknown)
    for title in ("Control groups", "Forwarding", "Rules on bridges"):
        assert found[title].tone == "unknown" and found[title].found == "Not known"


def test_a_host_that_was_enrolled_long_ago_says_nothing_of_it():
    assert list(ground({"arch": "x86_64"})) == []
