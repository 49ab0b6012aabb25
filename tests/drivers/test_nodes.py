"""Files that an emulator has open and libvirt knows nothing of, since it died in the middle of an attach."""

import json
import uuid
from types import SimpleNamespace

import libvirt
import libvirt_qemu
import pytest

from portal.drivers.errors import DriverError
from portal.drivers.libvirt.hot import Hot
from portal.drivers.registry import driver_for
from portal.drivers.types import Accelerator, DiskSpec, DomainSpec, PoolSpec, SeedSpec, VolumeSpec
from tests.drivers.contract.bench import MIB
from tests.drivers.contract.test_hot import disks
from tests.drivers.test_plugging import error

ROOT = "/var/lib/libvirt/images"
OWN, PATH = str(uuid.uuid4()), "/srv/data.qcow2"
RUNS = (
    "<domain><devices><disk><source file='/srv/a.qcow2' index='2'/><backingStore type='file' index='3'>"
    "<source file='/srv/base.qcow2'/></backingStore><target dev='vda'/></disk></devices></domain>"
)
DUPLICATE = (
    "unable to execute QEMU command 'blockdev-add': Duplicate nodes with node-name='libvirt-6-storage'"
)


class Emulator:
    """A domain whose emulator has nodes, by name: each has a file, and stands on others."""

    def __init__(self, refusal=DUPLICATE):
        self.refusal, self.attached = refusal, 0
        self.nodes = {
            "libvirt-2-format": ("/srv/a.qcow2", "/srv/base.qcow2", "libvirt-2-storage", "libvirt-3-format"),
            "libvirt-2-storage": ("/srv/a.qcow2", ""),
            "libvirt-3-format": ("/srv/base.qcow2", "", "libvirt-3-storage"),
            "libvirt-3-storage": ("/srv/base.qcow2", ""),
            "libvirt-6-storage": (PATH, ""),
            "libvirt-6-format": (PATH, "/srv/base.qcow2", "libvirt-6-storage", "libvirt-7-format"),
            "libvirt-7-storage": ("/srv/base.qcow2", ""),
            "libvirt-7-format": ("/srv/base.qcow2", "", "libvirt-7-storage"),
            "theirs": (PATH, ""),
        }
        self.devices = {"virtio-disk0": "libvirt-2-format"}

    def lookupByUUIDString(self, _uuid):  # noqa: N802 (libvirt's name)
        return self

    def isActive(self):  # noqa: N802
        return True

    def XMLDesc(self, flags=0):  # noqa: N802
        return RUNS

    def attachDeviceFlags(self, _text, _flags):  # noqa: N802
        self.attached += 1
        if self.attached == 1:
            raise error(libvirt.VIR_ERR_INTERNAL_ERROR, self.refusal)

    def tell(self, _self, text, _flags):
        told = json.loads(text)
        verb = getattr(self, told["execute"].replace("-", "_"))
        arguments = {name.replace("-", "_"): value for name, value in told["arguments"].items()}
        return json.dumps(verb(**arguments))

    def query_named_block_nodes(self, flat):
        made = [{"node-name": name, "file": node[0], **({"backing_file": node[1]} if node[1] else {})}
                for name, node in self.nodes.items()]
        return {"return": made}

    def query_block(self):
        made = [{"qdev": f"/machine/peripheral/{name}/virtio-backend", "inserted": {"node-name": node}}
                for name, node in self.devices.items()]
        return {"return": [*made, {"qdev": "empty"}]}

    def device_del(self, id):
        del self.devices[id]
        return {"return": {}}

    def blockdev_del(self, node_name):
        if node_name in self.devices.values() or any(node_name in node[2:] for node in self.nodes.values()):
            return {"error": {"desc": f"Node {node_name} is in use"}}
        del self.nodes[node_name]
        return {"return": {}}


@pytest.fixture
def emulator(monkeypatch):
    made = Emulator()
    monkeypatch.setattr(libvirt_qemu, "qemuMonitorCommand", made.tell)
    return made


KNOWN = ["libvirt-2-format", "libvirt-2-storage", "libvirt-3-format", "libvirt-3-storage", "theirs"]


@pytest.mark.parametrize("device", ["", "virtio-disk1"])
def test_what_libvirt_did_not_note_is_closed_and_attached_again(emulator, device):
    """Red when a node goes that libvirt knows, or one of them is left, or the guest's device."""
    if device:
        emulator.devices[device] = "libvirt-6-format"
    assert Hot(emulator).attach_disk(OWN, DiskSpec(PATH, "vdb")) is True
    assert list(emulator.nodes) == KNOWN and list(emulator.devices) == ["virtio-disk0"]
    assert emulator.attached == 2


@pytest.mark.parametrize("path", ["/srv/a.qcow2", "/srv/other.qcow2"])
def test_what_libvirt_knows_stays_and_the_refusal_is_told(emulator, path):
    """Red when known nodes are taken, or the attempt is made again where nothing has changed."""
    before = dict(emulator.nodes)
    with pytest.raises(DriverError, match="Duplicate nodes"):
        Hot(emulator).attach_disk(OWN, DiskSpec(path, "vdb"))
    assert emulator.nodes == before and emulator.attached == 1


def test_an_emulator_is_asked_only_when_it_refused(emulator):
    """Red when whatever libvirt says by itself leads to the emulator, which taints the domain."""
    emulator.refusal, before = "target vdb already exists", dict(emulator.nodes)
    with pytest.raises(DriverError, match="already exists"):
        Hot(emulator).attach_disk(OWN, DiskSpec(PATH, "vdb"))
    assert emulator.nodes == before


@pytest.fixture
def there(second_host):
    """A domain that runs on a further host, and a volume that no disk of it is."""
    driver = driver_for(second_host.local_uri)
    pool = PoolSpec("gttest", str(uuid.uuid4()), f"{ROOT}/gttest")
    driver.ensure_pool(pool)
    specs = [VolumeSpec(pool.name, f"{name}.qcow2", 16 * MIB) for name in "ab"]
    path, other = (driver.create_volume(spec).path for spec in specs)
    seed = driver.write_seed(SeedSpec(pool.name, "seed.iso", "{}", "#cloud-config")).path
    made = DomainSpec("gttest", str(uuid.uuid4()), 1, 64 * MIB, disks=(DiskSpec(path),), seed_path=seed,
                      accelerator=Accelerator.EMULATION)
    driver.define(made)
    driver.start(made.uuid)
    connection = libvirt.open(second_host.local_uri)
    yield SimpleNamespace(driver=driver, path=other, domain=connection.lookupByUUIDString(made.uuid))
    connection.close()
    driver.close()


def tell(domain, command, **arguments):
    text = json.dumps({"execute": command, "arguments": arguments})
    answer = json.loads(libvirt_qemu.qemuMonitorCommand(domain, text, 0))
    assert "return" in answer, answer
    return answer["return"]


@pytest.mark.live
@pytest.mark.parametrize("number", ["next", "another"])
@pytest.mark.parametrize("device", [False, True])
def test_qemu_lets_go_what_libvirt_did_not_note(there, second_host, number, device):
    """Red when attachDeviceFlags() is tried again without that: QEMU refuses the file's lock."""
    domain = there.domain
    number = 4 if number == "next" else 90
    storage, top = f"libvirt-{number}-storage", f"libvirt-{number}-format"
    # As libvirt leaves it: it has given the file to QEMU's user by then.
    second_host.run("chmod", "666", there.path)
    tell(domain, "blockdev-add", driver="file", filename=there.path, **{"node-name": storage})
    tell(domain, "blockdev-add", driver="qcow2", file=storage, **{"node-name": top})
    if device:
        tell(domain, "device_add", driver="scsi-hd", bus="scsi0.0", lun="5", id="scsi0-0-0-5", drive=top)
    assert there.driver.attach_disk(domain.UUIDString(), DiskSpec(there.path, "vdb")) is True
    assert disks(domain.XMLDesc())["vdb"] == there.path
    blocks = tell(domain, "query-block")
    mine = [block for block in blocks if block.get("inserted", {}).get("file") == there.path]
    assert len(mine) == 1 and "/virtio-disk1/" in mine[0]["qdev"]
