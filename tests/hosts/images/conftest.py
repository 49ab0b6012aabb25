"""A folder of the test's own for what is handed in, and a host whose pool images are copied to."""

import secrets
import subprocess
import tempfile
from pathlib import Path

import pytest

from portal.drivers.registry import driver_for
from portal.drivers.types import PoolSpec
from portal.hosts.images import copies, importing, services, store
from portal.hosts.images.keeper import Keeper
from portal.hosts.images.values import Wanted
from portal.hosts.models import PoolAttachment, StoragePool
from portal.operations.models import Operation
from portal.operations.registry import StepFailed
from portal.operations.states import State
from tests.factories import make_host
from tests.hosts.conftest import carry_out

MIB = 1 << 20
WANTED = Wanted(kind="disk", name="example", title="Example Linux", version="1.0", login_user="root")


@pytest.fixture
def uploads(settings, tmp_path, monkeypatch):
    settings.UPLOADS = tmp_path / "uploads"
    monkeypatch.setattr(store, "SPARE", 0)
    return settings.UPLOADS


@pytest.fixture
def keeper(uploads, settings):
    """The part that writes what browsers send, where the services find it."""
    with tempfile.TemporaryDirectory(prefix="gttest-k-") as folder:  # a socket's path must be short
        settings.UPLOADS_SOCKET = Path(folder) / "uploads.sock"
        running = Keeper(settings.UPLOADS_SOCKET)
        running.start()
        yield running
        running.stop()


@pytest.fixture
def pool(db, monkeypatch):
    """A pool on a host without libvirt; its driver is `pool.driver`."""
    return make_pool(monkeypatch, {})


@pytest.fixture
def disk(tmp_path):
    """A qcow2 with 3 MiB of noise in it, as bytes."""
    raw, path = tmp_path / "noise.raw", tmp_path / "noise.qcow2"
    raw.write_bytes(secrets.token_bytes(3 * MIB).ljust(16 * MIB, b"\0"))
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", raw, path], check=True)
    return path.read_bytes()


@pytest.fixture
def upload(chief, uploads):
    return services.begin_upload(actor=chief, wanted=WANTED)


def make_pool(monkeypatch, drivers, name="example-host"):
    """A host of the test's own, which answers by a driver in this process; `drivers` are those of before."""
    host = make_host(name, f"fake://{name}/")
    made = StoragePool.objects.create(name=f"gatehouse-{name}")
    place = PoolAttachment.objects.create(host=host, pool=made, path=f"/example/{name}")
    driver = drivers[host.pk] = place.driver = driver_for(host.uri)
    driver.ensure_pool(PoolSpec(made.name, str(made.uuid), place.path))

    def call(host_id, verb, *args, timeout):
        return getattr(drivers[host_id], verb)(*args)

    monkeypatch.setattr(importing, "call", call)
    monkeypatch.setattr(copies, "call", call)
    return place


def send(person, upload, content, chunk=MIB, name="example.qcow2"):
    """Send a file as a browser does, from where it is; return its import's operation."""
    size, head = len(content), content[:4096]
    offset = services.start_file(actor=person, upload=upload, name=name, size=size, head=head)
    while offset < size:
        offset = send_chunk(person, upload, content, offset, chunk)
    return Operation.objects.filter(subject=upload.topic).order_by("-pk").first()


def send_chunk(person, upload, content, offset, chunk=MIB):
    piece = content[offset : offset + chunk]
    return services.receive(
        actor=person, upload=upload, offset=offset, stream=Piece(piece), length=len(piece)
    )


class Piece:
    """A body as it arrives, never more than a little at a time."""

    def __init__(self, content):
        self.content = content

    def read(self, size):
        taken, self.content = self.content[: min(size, 70_000)], self.content[min(size, 70_000) :]
        return taken


def imported(operation):
    """Carry the import out; return the operation as it ended, and the codes of what failed in it."""
    carry_out(operation)
    operation.refresh_from_db()
    codes = [code for code in operation.steps.values_list("error_code", flat=True) if code]
    return State(operation.state), codes


def files(uploads):
    """Return what lies in the folder, by suffix."""
    return sorted(path.suffix for path in uploads.rglob("*") if path.is_file())


def fail(*_):
    """Fail a step as nothing that passes does."""
    raise StepFailed("internal")


class Died(BaseException):
    """The worker ends here."""


def die(monkeypatch, operation, place, name, dies):
    """Import with `dies`, which raises Died, in the place of a function; another worker may go on then."""
    with monkeypatch.context() as patched:
        patched.setattr(place, name, dies)
        with pytest.raises(Died):
            imported(operation)
    Operation.objects.filter(pk=operation.pk).update(state=State.QUEUED)
