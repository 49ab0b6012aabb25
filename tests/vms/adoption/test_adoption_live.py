"""A machine made by plain libvirt: found by the watch, adopted, edited, released, and no line of it lost."""

import time
import uuid
from collections import Counter as Lines

import libvirt
import pytest

from portal.accounts.models import Membership, Role, User
from portal.hosts.watcher import Watcher
from portal.operations import scopes
from portal.operations.models import Counter, Operation
from portal.operations.states import State
from tests.factories import MIB, make_host
from tests.vms.real import URI
from tests.vms.test_ending import WORKER, carry_out, points  # noqa: F401 (WORKER: whose workers `worker` runs)
from vms import editing
from vms.adoption import again, found
from vms.adoption.kind import LOOK_AGAIN
from vms.adoption.services import ADOPT, adopt_machine, release_machine
from vms.models import Definition, Observed, Status, VirtualMachine

pytestmark = [
    pytest.mark.database,
    pytest.mark.live,
    pytest.mark.usefixtures("trail_that_can_be_flushed"),
]
INACTIVE = libvirt.VIR_DOMAIN_XML_INACTIVE
#: Seconds for the watch to read a definition; far more than it takes.
PATIENCE = 60
MADE = """<?xml version="1.0"?>
<!-- made by hand, on a Friday -->
<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <genid>43dc0cf8-809b-4adb-9bea-a9abb5f3d90e</genid>
  <title>Somebody else's</title>
  <metadata>
    <app:note xmlns:app='urn:example:app' app:colour='blue'>keep <app:b>me</app:b></app:note>
  </metadata>
  <memory unit='MiB'>64</memory>
  <blkiotune><weight>500</weight></blkiotune>
  <vcpu placement='static' cpuset='0'>1</vcpu>
  <cputune><shares>1024</shares></cputune>
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    <boot dev='hd'/>
    <boot dev='network'/>
    <smbios mode='sysinfo'/>
  </os>
  <sysinfo type='smbios'><system><entry name='serial'>theirs</entry></system></sysinfo>
  <features><acpi/><apic eoi='on'/></features>
  <on_crash>preserve</on_crash>
  <devices>
    <!-- a device that the portal knows nothing of -->
    <panic model='isa'/>
    <gizmo shape='round'/>
    <interface type='user'><mac address='{mac}'/><model type='e1000'/></interface>
    <serial type='pty'><target port='0'/></serial>
    <hub type='usb'/>
  </devices>
  <qemu:commandline>
    <qemu:arg value='-global'/>
    <qemu:arg value='isa-fdc.fallback=144'/>
  </qemu:commandline>
</domain>
"""


@pytest.fixture
def domain():
    """A running domain that the portal had no part in; it goes by its UUID in the end."""
    connection, own = libvirt.open(URI), uuid.uuid4()
    name, mac = f"gttest Foreign_{own.hex[:6]}", f"52:54:00:ff:{own.hex[:2]}:{own.hex[2:4]}"
    made = connection.defineXML(MADE.format(name=name, uuid=own, mac=mac))
    try:
        made.create()
        yield made
    finally:
        left = connection.lookupByUUIDString(str(own))
        if left.isActive():
            left.destroy()
        left.undefine()
        connection.close()


@pytest.fixture
def operator(cast):
    person = User.objects.create(username="everywhere")
    Membership.objects.create(user=person, role=Role.OPERATOR)
    return person


@pytest.fixture
def watcher():
    made = Watcher()
    yield made
    made.close()


def watch_until(watcher, seen):
    """Watch until `seen` returns something, and return that."""
    end = time.monotonic() + PATIENCE
    while not (found := seen()):
        assert time.monotonic() < end, "the watch did not see it"
        watcher.turn(0.2)
    return found


def stranger(domain):
    definitions = Definition.objects.filter(uuid=domain.UUIDString())
    return found.strangers(definitions).first()


def texts(domain):
    return domain.XMLDesc(INACTIVE), domain.XMLDesc()


def changed_lines(before, after):
    """Return the lines that went and those that came."""
    old, new = (Lines(line.strip() for line in text.splitlines()) for text in (before, after))
    return list((old - new).elements()), list((new - old).elements())


def adopt(cast, operator, definition):
    return adopt_machine(
        actor=operator,
        definition=definition,
        project=cast.project,
        owner=cast.requester,
        name="adopted",
        lease_days=30,
    )


def test_a_machine_made_by_libvirt_is_adopted_and_edited_and_no_line_is_lost(
    cast, operator, worker, watcher, domain
):
    """Whatever dies meanwhile.

    Red when adopting writes to the host, or an edit loses what the portal does not know.
    """
    make_host(uri=URI, observed_cpus=0, observed_memory=0)
    made = texts(domain)
    definition = watch_until(watcher, lambda: stranger(domain))
    assert definition.observed_name == domain.name() and definition.observed_kept > 10
    assert found.why_not(definition) == ""
    watch_until(watcher, lambda: definition.host.__class__.objects.filter(observed_cpus__gt=0).exists())

    carry_out(worker, adopt(cast, operator, definition), *points(ADOPT))
    machine = VirtualMachine.objects.get()
    assert (machine.status, machine.memory, machine.vcpus) == (Status.ACTIVE, 64 * MIB, 1)
    assert machine.domain_name == domain.name() and str(machine.uuid) == domain.UUIDString()
    assert texts(domain) == made and domain.isActive()
    watch_until(watcher, lambda: VirtualMachine.objects.filter(observed_state=Observed.RUNNING).exists())

    values = {"description": "ours <now>", "boot": "network", "watchdog": "poweroff"}
    digest = Definition.objects.get(uuid=machine.uuid).observed_digest
    begun = editing.edit_machine(actor=cast.requester, machine=machine, values=values, digest=digest)
    carry_out(worker, begun, *points(editing.EDIT))
    gone, came = changed_lines(made[0], domain.XMLDesc(INACTIVE))
    assert gone == []
    assert came[0] == "<description>ours &lt;now&gt;</description>"
    assert came[1] == "<watchdog model='i6300esb' action='poweroff'>"
    # Where libvirt puts the new device.
    assert [line.split(" ")[0] for line in came[2:]] == ["<address", "</watchdog>"]
    boots = [line for line in domain.XMLDesc(INACTIVE).splitlines() if "<boot dev" in line]
    assert [line.strip() for line in boots] == ["<boot dev='network'/>", "<boot dev='hd'/>"]
    gone, came = changed_lines(made[1], domain.XMLDesc())
    assert gone == [] and came[0] == "<watchdog model='i6300esb' action='poweroff'>"
    assert [line.split(" ")[0] for line in came[1:]] == ["<alias", "<address", "</watchdog>"]

    edited = texts(domain)
    release_machine(actor=operator, machine=machine, confirm_name="adopted")
    assert texts(domain) == edited and watch_until(watcher, lambda: stranger(domain))


def test_an_adoption_that_fails_leaves_the_host_alone_and_it_is_found_again(
    cast, operator, worker, watcher, domain
):
    """Red when settle() keeps the machine of an operation that failed."""
    make_host(uri=URI)
    made = texts(domain)
    begun = adopt(cast, operator, watch_until(watcher, lambda: stranger(domain)))
    assert worker(begun.pk, failing="look") == 0
    assert Operation.objects.get(pk=begun.pk).state == State.FAILED
    assert not VirtualMachine.objects.exists() and stranger(domain) and texts(domain) == made


def test_what_virsh_changed_since_is_written_down_and_counted(cast, operator, worker, watcher, domain):
    """Whatever dies meanwhile.

    Red when a second look takes again, or anything is changed on the host.
    """
    make_host(uri=URI, observed_cpus=64, observed_memory=1 << 40)
    begun = adopt(cast, operator, watch_until(watcher, lambda: stranger(domain)))
    carry_out(worker, begun)
    machine = VirtualMachine.objects.get()
    domain.setVcpusFlags(3, libvirt.VIR_DOMAIN_AFFECT_CONFIG | libvirt.VIR_DOMAIN_VCPU_MAXIMUM)
    domain.setVcpusFlags(3, libvirt.VIR_DOMAIN_AFFECT_CONFIG)
    domain.setMemoryFlags(96 * 1024, libvirt.VIR_DOMAIN_AFFECT_CONFIG | libvirt.VIR_DOMAIN_MEM_MAXIMUM)
    changed = texts(domain)
    definition = Definition.objects.get(uuid=machine.uuid)

    def is_seen():
        definition.refresh_from_db()
        return definition.observed_persistent["memory_bytes"] == 96 * MIB

    watch_until(watcher, is_seen)
    begun = again.look_again(actor=operator, machine=machine, digest=definition.observed_digest)
    assert [one[:1] for one in begun.frozen["pinned"]["settings"]][0] == ["Memory"]
    carry_out(worker, begun, *points(LOOK_AGAIN))
    machine.refresh_from_db()
    assert (machine.vcpus, machine.memory, machine.memory_now) == (3, 96 * MIB, 64 * MIB)
    used = Counter.objects.filter(scope=scopes.of_project(cast.project)).exclude(used=0)
    counted = dict(used.values_list("resource", "used"))
    assert counted == {"vcpu": 3, "memory": 96 * MIB, "machines": 1}
    assert texts(domain) == changed and domain.isActive()
