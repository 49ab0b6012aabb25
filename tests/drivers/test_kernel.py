"""What a kernel is set to, from the texts of its files. Those are a host's own, so they may hold anything."""

import pytest

from portal.drivers.libvirt.kernel import understand
from portal.drivers.types import KernelFacts

V1 = "cgroup /sys/fs/cgroup/cpu cgroup rw,relatime,cpu,cpuacct 0 0\ncgroup /x cgroup rw,name=systemd 0 0\n"
V2 = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n"


@pytest.mark.parametrize(
    ("files", "facts"),
    [
        ({}, KernelFacts()),
        ({"mounts": V2, "controllers": "cpu io memory misc\n"}, KernelFacts(2, ("cpu", "io", "memory"))),
        ({"mounts": V2}, KernelFacts()),
        ({"mounts": V1}, KernelFacts(1, ("cpu", "cpuacct"))),
        ({"mounts": V1 + V2, "controllers": ""}, KernelFacts(1, ("cpu", "cpuacct"))),
        ({"forward": "1\n", "bridge": "1\n"}, KernelFacts(None, None, True, True)),
        ({"forward": "0\n", "bridge": "0\n"}, KernelFacts(None, None, False, False)),
        # The module is not loaded: no file, and no rule meets a packet on a bridge.
        ({"forward": "1\n"}, KernelFacts(None, None, True, False)),
        ({"forward": "<b>", "mounts": "\0 x\n\n", "controllers": "<i>"}, KernelFacts()),
    ],
)
def test_texts_are_understood_or_not_known(files, facts):
    """Red when a missing bridge file counts as not known, or words that are no controller are kept."""
    assert understand(files) == facts
