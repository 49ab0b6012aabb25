"""A second host is a real one, and nothing of it stays."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from portal.drivers.registry import driver_for
from portal.drivers.types import Accelerator
from tests.secondhost.lab import Lab, _control_groups, sweep, wait_for

pytestmark = pytest.mark.live


def answers(host):
    try:
        with socket.create_connection((host.address, 22), timeout=1) as client:
            return client.recv(4) == b"SSH-"
    except OSError:
        return False


@pytest.fixture
def key(tmp_path):
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True)
    return tmp_path / "key"


def virsh(host, key, user):
    uri = f"{host.uri(user)}?keyfile={key}&no_verify=1&sshauth=privkey&no_tty=1"
    return subprocess.run(["virsh", "-c", uri, "hostname"], capture_output=True, text=True, timeout=30)


def refusal(host, key, user):
    """Return what is said to somebody who is refused.

    The words of a program on the host may get lost on their way through ssh (seen once, on a busy machine,
    and not in 420 tries since), and libvirt says only that the connection ended: then ask again.
    """
    for _ in range(3):
        done = virsh(host, key, user)
        assert done.returncode
        if "End of file while reading data: Input/output error" not in done.stderr:
            break
    return done.stderr


def test_a_host_boots_guests_and_answers_those_who_may(second_host, key):
    public = key.with_suffix(".pub").read_text()
    for user in ("root", "gate", "stranger"):
        second_host.authorize(public, user)
    assert virsh(second_host, key, "root").stdout.strip() == second_host.name
    assert virsh(second_host, key, "gate").stdout.strip() == second_host.name
    assert "libvirt-sock': Permission denied" in refusal(second_host, key, "stranger")
    second_host.forbid("root")
    assert "Permission denied (publickey)" in refusal(second_host, key, "root")
    driver = driver_for(second_host.local_uri)
    assert driver.prove(Accelerator.EMULATION, 20.0).works
    driver.close()


def test_what_is_done_to_a_host_can_be_taken_back(lab, second_host):
    other = lab.host()
    second_host.unplug()
    assert not answers(second_host) and answers(other)
    second_host.plug()
    wait_for(lambda: answers(second_host))
    second_host.kill_libvirtd()
    second_host.start_libvirtd()
    second_host.freeze_libvirtd()
    asked = ["virsh", "-q", "-c", second_host.local_uri, "hostname"]
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run(asked, timeout=0.5)
    second_host.thaw_libvirtd()
    assert subprocess.run(asked, timeout=10, capture_output=True).returncode == 0
    seen, mac = second_host.fingerprint, second_host._mac
    second_host.power_cut()
    assert not answers(second_host) and answers(other)
    second_host.power_on()
    assert (second_host.fingerprint, second_host._mac) == (seen, mac)
    second_host.change_host_key()
    assert second_host.fingerprint != seen
    other.power_cut()


def test_an_interrupted_run_leaves_nothing():
    """Red when the first process goes on after its standard input closed, or `sweep` skips a free folder."""
    code = (
        "from tests.secondhost.lab import Lab\n"
        "import signal\n"
        "lab = Lab(); host = lab.host()\n"
        "print(lab.folder, lab.name, host._pid, flush=True); signal.pause()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as other:
        folder, name, pid = other.stdout.readline().split()
        sweep()
        assert Path(folder).exists(), "swept while it was in use"
        os.kill(other.pid, signal.SIGKILL)
    wait_for(lambda: not Path(f"/proc/{pid}").exists())
    with Lab():
        assert not Path(folder).exists()
        assert not [root for root in _control_groups() if (root / name).exists()]
    assert name not in subprocess.run(["ip", "link"], capture_output=True, text=True).stdout
