"""Rows that tests need: a host, its pool, an image, something to ask for. Plain example data."""

import uuid
from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace

from django.utils import timezone

from networks.models import Network
from portal.accounts.models import User
from portal.hosts.models import Health, Host, Image, ImageAttachment, PoolAttachment, StoragePool
from portal.operations.models import Operation
from portal.operations.spec import RequestSpec
from portal.operations.states import State
from vms.models import CatalogueItem, Flavour, Status, VirtualMachine
from vms.services import Wish

MIB, GIB = 1 << 20, 1 << 30


def make_host(name="example-host", uri="fake:///", **changes):
    """A host that is up and was proven."""
    values = {
        "accelerator": "qemu",
        "observed_health": Health.UP,
        "observed_at": timezone.now(),
        "observed_cpus": 8,
        "observed_memory": 16 * GIB,
    }
    return Host.objects.create(name=name, uri=uri, **values | changes)


#: A host key that is one, of a host that is not.
HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBqlmw4cs6tlQDlWZnzSDE/q0OXGahgBFbdGB3sL3wSM"


def make_ssh_host(name="example-ssh", user="gate", **changes):
    """A host by SSH that showed its key, which nobody confirmed yet."""
    values = {"accelerator": "", "offered_host_key": HOST_KEY, "offered_at": timezone.now()}
    host = make_host(name, f"qemu+ssh://{user}@{name}.invalid/system", **values | changes)
    pinned = {"pool": {"name": "p", "uuid": str(uuid.uuid4()), "path": "/srv/gatehouse"}}
    asker, _ = User.objects.get_or_create(username="asked-for-hosts")
    Operation.objects.create(
        token=uuid.uuid4(),
        kind="hosts.greet",
        requester=asker,
        state=State.SUCCEEDED,
        spec=RequestSpec("hosts.greet", {}, pinned).text(),
        subject=host.topic,
        title=f"Ask {name} for its key",
    )
    return host


def make_place(host, pool_name="example-pool", path="/example", image=None):
    """A pool on `host` that holds `image`."""
    pool = StoragePool.objects.create(name=pool_name)
    attachment = PoolAttachment.objects.create(host=host, pool=pool, path=path)
    image = image or make_image()
    ImageAttachment.objects.create(image=image, pool=attachment, path=f"{path}/{image.volume_name}")
    return attachment


def make_image(**changes):
    values = {
        "name": "tiny",
        "title": "Tiny",
        "version": "1",
        "sha256": uuid.uuid4().hex * 2,
        "size": 20 * MIB,
        "virtual_size": 128 * MIB,
        "login_user": "root",
        "min_memory": 64 * MIB,
        "source": "/example/tiny.qcow2",
    }
    return Image.objects.create(**values | changes)


def make_network(number=77, **changes):
    values = {
        "name": f"example{number}",
        "title": f"Example {number}",
        "bridge": f"gttbr{number}",
        "address": f"10.213.{number}.1",
        "dhcp_start": f"10.213.{number}.10",
        "dhcp_end": f"10.213.{number}.200",
    }
    return Network.objects.create(**values | changes)


def make_machine(cast, name, host, image=None, **changes):
    """A machine of the requester's on `host`, of which nobody saw anything yet."""
    built = Operation.objects.create(
        kind="test.files", requester=cast.requester, state=State.SUCCEEDED, spec="{}", token=uuid.uuid4()
    )
    values = {
        "status": Status.ACTIVE,
        "vcpus": 1,
        "memory": GIB,
        "lease_until": datetime(2100, 1, 1, tzinfo=UTC),
        "project": cast.project,
        "owner": cast.requester,
        "image": image or make_image(),
        "domain_name": name,
    }
    return VirtualMachine.objects.create(
        name=name, uuid=uuid.uuid4(), host=host, built_by=built, **values | changes
    )


def make_catalogue(image, network):
    """An item in one size."""
    flavour = Flavour.objects.create(
        name="small", vcpus=1, memory=128 * MIB, disk=256 * MIB, cost_month=Decimal("2.50")
    )
    item = CatalogueItem.objects.create(name="Tiny", description="To try things.", image=image)
    item.flavours.add(flavour)
    item.networks.add(network)
    return SimpleNamespace(item=item, flavour=flavour, network=network)


def make_wish(catalogue, **changes):
    values = {
        "item": catalogue.item,
        "flavour": catalogue.flavour,
        "network": catalogue.network,
        "name": "example-vm",
        "lease_days": 30,
        "why": "to try it",
        "user": "root",
    }
    return Wish(**values | changes)
