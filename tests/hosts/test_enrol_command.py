"""`manage.py enrol` and `manage.py bootstrap` carry enrolments out, and say what they do."""

import subprocess
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from portal.accounts.models import Membership, User
from portal.audit.models import AuditEntry
from portal.drivers import ssh
from portal.drivers.errors import HostUnreachable
from portal.drivers.fake import FakeDriver
from portal.drivers.types import Accelerator
from portal.hosts import steps
from portal.hosts.models import Health, Host
from portal.operations.models import Operation
from portal.operations.states import State
from tests.factories import HOST_KEY, make_image

pytestmark = [pytest.mark.database, pytest.mark.usefixtures("trail_that_can_be_flushed")]
SSH_URI = "qemu+ssh://gate@rack-1.invalid/system"


@pytest.fixture(autouse=True)
def host_on_this_side(settings, own_state, monkeypatch):
    """A fake host that answers the steps, and the state of a portal of its own."""
    settings.STATE_DIR = own_state
    fake = FakeDriver()
    fake.accelerators = frozenset({Accelerator.EMULATION})
    monkeypatch.setattr(steps, "call", lambda host, verb, *args, timeout: getattr(fake, verb)(*args))
    monkeypatch.setattr(ssh, "fetch_host_key", lambda address: HOST_KEY)
    return fake


def enrol(*arguments, uri="fake:///"):
    said = StringIO()
    call_command("enrol", "rack-1", uri, "--pool", "/srv/gatehouse", "--as", "chief", *arguments, stdout=said)
    return said.getvalue()


def test_a_host_is_enrolled_and_proven_again(chief):
    """Red when a second run begins a second host, or the steps are not carried out here."""
    said = enrol()
    assert "Boot a test guest to prove the accelerator: done" in said
    host = Host.objects.get()
    assert (host.accelerator, host.observed_health, host.observed_cpus) == ("qemu", Health.UP, 8)
    assert host.pools.get().observed_capacity == 1 << 40
    enrol()
    assert Host.objects.count() == 1
    assert list(Operation.objects.values_list("state", flat=True)) == [State.SUCCEEDED] * 2


def test_a_failure_is_said_with_the_hosts_own_words(chief, host_on_this_side, monkeypatch):
    host_on_this_side.accelerators = frozenset()
    said = StringIO()
    with pytest.raises(CommandError, match="failed"):
        call_command("enrol", "rack-1", "fake:///", pool="/srv/gh", username="chief", stdout=said)
    assert "nothing_boots" in said.getvalue() and "was silent" in said.getvalue()
    assert not Host.objects.get().accelerator


def test_who_may_not_and_what_is_no_address_is_refused(chief, cast):
    with pytest.raises(CommandError, match="nobody called"):
        call_command("enrol", "x", "fake:///", pool="/srv/gh", username="stranger")
    with pytest.raises(CommandError, match="You may not enrol hosts"):
        call_command("enrol", "x", "fake:///", pool="/srv/gh", username="requester")
    with pytest.raises(CommandError, match="nothing may follow"):
        enrol(uri="qemu+ssh://x/system?command=id")
    assert not Host.objects.exists()


def test_a_host_by_ssh_is_enrolled_only_with_its_fingerprint(chief):
    """Red when the command confirms what the host shows without being told to."""
    with pytest.raises(CommandError, match=f"--host-key {ssh.fingerprint(HOST_KEY)}".replace("+", r"\+")):
        enrol(uri=SSH_URI)
    with pytest.raises(CommandError, match="The host shows the key"):
        enrol("--host-key", "SHA256:another", uri=SSH_URI)
    assert not Host.objects.get().host_key
    said = enrol("--host-key", ssh.fingerprint(HOST_KEY), uri=SSH_URI)
    host = Host.objects.get()
    assert host.host_key == HOST_KEY and host.accelerator
    assert "restrict,port-forwarding ssh-ed25519" in said
    assert "Enrol rack-1: done" in enrol("--host-key", ssh.fingerprint(HOST_KEY), uri=SSH_URI)


def test_bootstrap_enrols_by_the_same_way_once(cast, host_on_this_side):
    """Red when bootstrap enrols by itself, begins that on every run, or says that a person did."""
    person = User.objects.get(username="admin")
    Membership.objects.filter(user=person).update(project=None)

    def bootstrap():
        said = StringIO()
        call_command("bootstrap", "--host", "here", "fake:///", "/srv/gatehouse", stdout=said)
        return said.getvalue()

    def unreachable(*_args):
        raise HostUnreachable("no route", retryable=False)

    assert "Make the storage pool ready: done" in bootstrap()
    assert "Make the storage pool ready" not in bootstrap()
    assert Operation.objects.count() == 1 and Host.objects.get().accelerator == "qemu"
    begun = AuditEntry.objects.filter(verb__in=["host.enrolled", "operation.begun"])
    assert [entry.actor_name for entry in begun] == ["set-up"] * 2
    Host.objects.update(accelerator="")
    host_on_this_side.readiness = unreachable
    said = bootstrap()
    assert "host_unreachable: no route" in said and "failed" in said


@pytest.fixture
def image_file(tmp_path):
    """The row of an image with a file that can be copied."""
    path = tmp_path / "tiny.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "16M"], check=True)
    return make_image(source=str(path), virtual_size=16 << 20)


@pytest.mark.parametrize(
    ("kernels", "accelerator", "words"),
    [
        (frozenset(Accelerator), "kvm", "KVM with Tiny: A fake kernel asked to sign in."),
        (frozenset({Accelerator.EMULATION}), "qemu", "KVM with Tiny: A fake kernel hung."),
    ],
)
def test_kvm_counts_when_a_kernel_boots_on_it(
    chief, host_on_this_side, image_file, kernels, accelerator, words
):
    """Red when the sector alone is enough, or the proof comes before the images."""
    host_on_this_side.accelerators, host_on_this_side.kernels = frozenset(Accelerator), kernels
    enrol()
    host = Host.objects.get()
    assert host.accelerator == accelerator and words in host.proof


def test_without_an_image_the_proof_says_what_it_lacks(chief, host_on_this_side):
    host_on_this_side.accelerators = frozenset(Accelerator)
    enrol()
    assert Host.objects.get().accelerator == "kvm"
    assert "no image is there to boot a kernel from" in Host.objects.get().proof
