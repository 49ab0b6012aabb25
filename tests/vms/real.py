"""Machines of the tests on the real libvirt: asked for, looked at on the host, taken away. Not for: fakes."""

import base64
import json
import os
import secrets
import subprocess
import time
import uuid
from pathlib import Path

from portal.hosts.models import Image
from portal.operations.models import Counter, Operation
from tests import factories
from vms.services import request_machine

URI = os.environ.get("GATEHOUSE_TEST_LIBVIRT_URI", "qemu:///system")
POOL_ROOT = os.environ.get("GATEHOUSE_TEST_POOL_ROOT", "/var/lib/libvirt/images")
IMAGES = Path(os.environ.get("GATEHOUSE_IMAGES", Path(__file__).resolve().parents[2] / "var/images"))
#: One network for all of them, in every run: it stays on the host, as networks do.
NETWORK = uuid.UUID("0b4a1b50-4f0e-4c39-9c2b-6f7d5f2f7878")


def offer(real, network=None):
    """Return a catalogue with the tiny image, on a host that is this machine; on `network` or that of all."""
    _driver, pool, entry, volume = real
    host = factories.make_host(uri=URI)
    image = factories.make_image(
        sha256=entry["sha256"],
        virtual_size=entry["virtual_size_bytes"],
        device_models=entry["device_models"],
    )
    place = factories.make_place(host, pool.name, pool.path, image)
    place.images.update(path=volume.path)
    Counter.objects.create(scope=host.scope, resource="memory", limit=factories.GIB)
    network = network or factories.make_network(78, uuid=NETWORK)
    catalogue = factories.make_catalogue(Image.objects.get(), network)
    catalogue.item.device_models = entry["device_models"]
    catalogue.item.save()
    return catalogue


def ask(cast, catalogue, **wish):
    """Ask for a machine of what `offer` returned."""
    name = f"gttest-{secrets.token_hex(3)}"
    made = factories.make_wish(catalogue, name=name, **wish)
    return request_machine(actor=cast.requester, project=cast.project, wish=made, token=uuid.uuid4())


def force_away(driver, operation):
    """Remove what a failed test would leave on the host."""
    operation = Operation.objects.get(pk=operation.pk)
    names = operation.identifiers
    for info in driver.list_domains():
        if info.uuid == names["uuid"]:
            driver.destroy(info.uuid)
            driver.undefine(info.uuid)
    further = [disk["volume"] for disk in names.get("further", ())]
    for volume in (names["volume"], *further, names["seed"]):
        driver.delete_volume(names["pool"], volume)


def on_host(driver, operation):
    """Return what the operation has on the host: domains and volumes under its names."""
    names = operation.identifiers
    domains = [info.name for info in driver.list_domains() if info.uuid == names["uuid"]]
    volumes = [info.name for info in driver.list_volumes(names["pool"]) if info.name != "tiny.qcow2"]
    return domains + volumes


def inside(uuid, *command):
    """Run a command inside a guest by its agent and return what it wrote."""
    execute = {"path": command[0], "arg": list(command[1:]), "capture-output": True}
    pid = _agent(uuid, "guest-exec", execute)["pid"]
    while not (told := _agent(uuid, "guest-exec-status", {"pid": pid}))["exited"]:
        time.sleep(0.1)
    return base64.b64decode(told.get("out-data", "")).decode()


def _agent(uuid, verb, arguments):
    question = json.dumps({"execute": verb, "arguments": arguments})
    command = ["virsh", "-q", "-c", URI, "qemu-agent-command", "--timeout", "20", str(uuid), question]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["return"]


def await_agent(driver, uuid):
    """Wait until the guest's agent answers; a tiny guest under emulation needs some ten seconds."""
    end = time.monotonic() + 90
    while not driver.guest_agent_ping(str(uuid)):
        assert time.monotonic() < end, "no agent answers"
        time.sleep(0.3)


def held(operation):
    counter = Counter.objects.get(scope=operation.lane, resource="memory")
    return counter.held, counter.used
