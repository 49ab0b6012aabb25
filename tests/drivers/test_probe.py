"""What a host is asked for its proof, what it says of itself, and that no proof leaves anything."""

import secrets
import time
import uuid

import pytest

from portal.drivers.libvirt import proof
from portal.drivers.libvirt.xml.capabilities import Capabilities
from portal.drivers.libvirt.xml.probe import boot_disk, probe_xml
from portal.drivers.registry import driver_for
from portal.drivers.types import PROBE_PREFIX, Accelerator, PoolSpec
from portal.drivers.validation import host_uuid

CAPABILITIES = """<capabilities>
  <host>
    <uuid>B858E11A-4674-41F5-9295-FDB86F5D0D29</uuid>
    <cpu><arch>x86_64</arch><model>EPYC</model><vendor>AMD</vendor><feature name='svm'/></cpu>
    <iommu support='yes'/>
    <secmodel><model>apparmor</model></secmodel>
  </host>
  <guest><arch name='i686'><machine maxCpus='999'>old</machine><domain type='xen'/></arch></guest>
  <guest>
    <arch name='x86_64'>
      <machine maxCpus='288'>q35</machine><machine maxCpus='many'>pc</machine>
      <domain type='qemu'/><domain type='kvm'/>
    </arch>
  </guest>
</capabilities>"""


def test_sector_is_bootable_and_its_word_is_bounded():
    disk = boot_disk("GATEHOUSE-1")
    assert len(disk) == 1024 * 1024
    assert disk[510:512] == b"\x55\xaa"
    assert disk.index(b"GATEHOUSE-1\0") < 510
    for word in ("", "x" * 64):
        with pytest.raises(ValueError, match="word"):
            boot_disk(word)


def test_kvm_is_tried_with_the_processor_that_machines_get():
    """Red when the proof drops host-model: a plain processor may start where machines cannot."""
    assert 'cpu mode="host-model"' in probe_xml("a", Accelerator.KVM, "/a")
    assert "<cpu" not in probe_xml("a", Accelerator.EMULATION, "/a")


def test_capabilities_are_read_for_the_hosts_own_processor():
    found = Capabilities.from_xml(CAPABILITIES)
    assert (found.arch, found.cpu_model, found.cpu_vendor) == ("x86_64", "EPYC", "AMD")
    assert (found.virtualization_flag, found.max_vcpus, found.iommu) == ("svm", 288, True)
    assert found.domain_types == {"qemu", "kvm"}
    assert found.machine_types == ("pc", "q35")
    assert found.security_models == ("apparmor",)
    assert found.uuid == "b858e11a-4674-41f5-9295-fdb86f5d0d29"
    empty = Capabilities.from_xml("<capabilities/>")
    assert empty.uuid == ""
    assert (empty.arch, empty.max_vcpus, empty.iommu, empty.machine_types) == ("", 0, None, ())


@pytest.mark.parametrize(
    "told",
    [
        "00000000-0000-0000-0000-000000000000",
        "ffffffff-ffff-ffff-ffff-ffffffffffff",
        "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF",
        "03000200-0400-0500-0006-000700080009",
        "00020003-0004-0005-0006-000700080009",
        "Not Settable",
        "<b>b858e11a-4674-41f5-9295-fdb86f5d0d29",
        "",
    ],
)
def test_what_makers_leave_says_nothing_of_who_a_host_is(told):
    """Red when host_uuid() takes any UUID."""
    assert host_uuid(told) == ""
    real = "b858e11a-4674-41f5-9295-fdb86f5d0d29"
    assert host_uuid(f" {real.upper()}\n") == real


@pytest.mark.live
def test_kvm_works_here_or_the_proof_says_why():
    """Red when a guest that never got on, or that the host refused, leaves no word."""
    driver = driver_for("qemu:///system")
    found = driver.prove(Accelerator.KVM, 20)
    driver.close()
    assert found.works or found.evidence.startswith("The host refused") or "did not write" in found.evidence


@pytest.mark.live
def test_what_an_interrupted_proof_left_is_swept():
    """Red when _sweep does nothing, or looks at no age and takes the disk from a proof that runs."""
    driver, ages = driver_for("qemu:///system"), {"old": proof.STALE_SECONDS + 60, "new": 0}
    names = {}
    for word, age in ages.items():
        name = names[word] = f"{PROBE_PREFIX}-{int(time.time()) - age}-{secrets.token_hex(4)}"
        driver.ensure_pool(PoolSpec(name, str(uuid.uuid4()), f"/var/lib/libvirt/images/{name}"))
    try:
        driver.prove(Accelerator.EMULATION, 20)
        left = {pool.name for pool in driver.list_pools()}
        assert (names["old"] in left, names["new"] in left) == (False, True)
    finally:
        for name in names.values():
            driver.remove_pool(name)
        driver.close()
