"""What a driver says when libvirt does not change a disk over to its copy. Not for: a real one's ways."""

import libvirt
import pytest

from portal.drivers.errors import CopyUnsure, HostUnreachable, InvalidState
from portal.drivers.libvirt import plugging
from portal.drivers.libvirt.moving import Moving
from portal.drivers.types import CopyStage
from tests.drivers.test_plugging import error

UUID, HERE, THERE = "5e1ba0a1-0000-4000-8000-000000000001", "/example/disk.qcow2", "/other/disk.qcow2"
MIRROR = f"<mirror job='copy' ready='yes'><source file='{THERE}'/></mirror>"
FAILED = error(libvirt.VIR_ERR_OPERATION_FAILED, "block job failed while pivoting")
BUSY = error(libvirt.VIR_ERR_OPERATION_INVALID, "block job on disk 'vda' is still being ended")
OFF = error(libvirt.VIR_ERR_OPERATION_INVALID, "domain is not running")


class Domain:
    """A domain whose copy is ready; told to change over, it becomes `then` and libvirt raises `answer`."""

    def __init__(self, answer, *, file=HERE, mirror="", active=True):
        self.answer, self.then = answer, (file, mirror, active)
        self.now = (HERE, MIRROR, True)

    def lookupByUUIDString(self, _uuid):  # noqa: N802 (libvirt's names)
        return self

    def isActive(self):  # noqa: N802
        return self.now[2]

    def isPersistent(self):  # noqa: N802
        return False

    def snapshotNum(self):  # noqa: N802
        return 0

    def XMLDesc(self, _flags=0):  # noqa: N802
        if self.now is self.then and self.then[0] == "":
            raise error(libvirt.VIR_ERR_INVALID_CONN, "libvirt died")
        file, mirror, _active = self.now
        return (
            f"<domain><devices><disk type='file' device='disk'><source file='{file}'/>{mirror}"
            "<target dev='vda'/></disk></devices></domain>"
        )

    def blockJobInfo(self, _target):  # noqa: N802
        return {}

    def blockJobAbort(self, _target, _flags):  # noqa: N802
        self.now = self.then
        if self.answer:
            raise self.answer


@pytest.mark.parametrize(
    ("domain", "raised"),
    [
        (Domain(FAILED), InvalidState),
        (Domain(BUSY, mirror=MIRROR), CopyUnsure),
        (Domain(OFF, active=False), CopyUnsure),
        (Domain(FAILED, file=""), HostUnreachable),
        (Domain(None), CopyUnsure),
    ],
)
def test_only_a_libvirt_that_saw_it_fail_is_believed(domain, raised, monkeypatch):
    """Red when _pivot() passes on libvirt's own error: InvalidState would say that nothing was ordered."""
    monkeypatch.setattr(plugging, "PATIENCE", 0)
    with pytest.raises(raised):
        Moving(domain).finish(UUID, "vda", HERE, THERE, copied=False)


def test_a_copy_that_libvirt_is_ending_is_not_over():
    """Red when a copy without a kind counts as another's work, which nobody would wait for."""
    domain = Domain(None)
    domain.now = (HERE, MIRROR.replace(" job='copy' ready='yes'", " job=''"), True)
    assert Moving(domain).look(UUID, "vda", THERE).stage is CopyStage.COPYING


def test_one_that_was_made_all_the_same_is_made():
    Moving(Domain(BUSY, file=THERE)).finish(UUID, "vda", HERE, THERE, copied=False)
