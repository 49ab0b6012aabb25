"""What a host is fit for, finding by finding; its kernel and networks are in test_ground.py."""

import pytest

from portal.hosts.models import Health
from portal.hosts.readiness import report
from tests.factories import GIB, make_host, make_place

pytestmark = [pytest.mark.database, pytest.mark.django_db]
GOOD = {
    "virtualization_flag": "vmx",
    "cpu_vendor": "Example",
    "cpu_model": "One",
    "arch": "x86_64",
    "kvm_offered": True,
    "iommu": True,
    "security_models": ["apparmor", "dac"],
    "host": {
        "libvirt_version": 99_000_000,
        "hypervisor": "QEMU",
        "hypervisor_version": 99_000_000,
    },
}
OLD = {"host": GOOD["host"] | {"libvirt_version": 1_002_003}}


def findings(*, told=None, place=True, free=GIB, **host):
    made = make_host(**({"accelerator": "kvm"} | host), readiness=GOOD | (told or {}))
    if place:
        make_place(made)
        made.pools.update(observed_capacity=2 * GIB, observed_available=free)
    return {finding.title: finding for finding in report(made)}


def test_a_host_in_order_has_nothing_to_mend_of_its_own():
    found = findings()
    titles = ("Health", "How guests run", "Making networks", "Processor", "KVM", "libvirt", "QEMU", "IOMMU")
    for title in titles:
        assert (found[title].tone, found[title].mend) == ("good", ""), title
    assert found["Security driver"].found == "apparmor"
    pool = found["Pool example-pool"]
    assert pool.tone == "good" and "1 GiB free of 2 GiB" in pool.found


@pytest.mark.parametrize(
    ("changes", "title", "tone", "word", "mend"),
    [
        ({"observed_health": Health.STALE}, "Health", "bad", "Does not answer", "libvirtd"),
        ({"accelerator": "qemu"}, "How guests run", "warn", "Emulated", "firmware"),
        ({"accelerator": ""}, "How guests run", "bad", "Not proven", "prove again"),
        ({"bridges": False}, "Making networks", "warn", "own only", "bridges"),
        ({"told": {"virtualization_flag": ""}}, "Processor", "warn", "Example One", "VT-x"),
        ({"told": {"kvm_offered": False}}, "KVM", "warn", "Not offered", "/dev/kvm"),
        ({"accelerator": "qemu"}, "KVM", "warn", "Offered, not proven", "nested"),
        ({"told": OLD}, "libvirt", "warn", "1.2.3", "Upgrade"),
        ({"told": {"iommu": False}}, "IOMMU", "unknown", "Off", "intel_iommu=on"),
        ({"told": {"iommu": None}}, "IOMMU", "unknown", "does not say", "intel_iommu=on"),
        ({"told": {"security_models": ["none", "dac"]}}, "Security driver", "warn", "None", "AppArmor"),
        ({"place": False}, "Storage pool", "bad", "None", "Prove again"),
        ({"free": 1}, "Pool example-pool", "warn", "of 2 GiB in /example", "Free space"),
    ],
)
def test_each_trouble_says_what_it_means_and_how_to_mend_it(changes, title, tone, word, mend):
    """Red when what libvirt offers is told as good without a proof, or an unknown as off."""
    found = findings(**changes)[title]
    assert found.tone == tone and word in found.found and mend in found.mend and found.means
