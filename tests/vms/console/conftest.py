"""A running machine, and where its broker listens."""

import tempfile
import uuid
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone

from portal.operations.models import Operation
from tests.factories import make_host, make_image
from vms.console import wire
from vms.models import Observed, Status, VirtualMachine


@pytest.fixture
def machine(cast):
    """The requester's running machine on a host whose consoles echo."""
    operation = Operation.objects.create(
        kind="test.files",
        project=cast.project,
        requester=cast.requester,
        token=uuid.uuid4(),
        state="succeeded",
    )
    return VirtualMachine.objects.create(
        name="example-vm",
        uuid=uuid.uuid4(),
        project=cast.project,
        owner=cast.requester,
        host=make_host(uri="fake://host/?console="),
        built_by=operation,
        item_name="Tiny",
        image=make_image(),
        vcpus=1,
        memory=1 << 27,
        login_user="root",
        status=Status.ACTIVE,
        lease_until=timezone.now() + timedelta(days=1),
        observed_state=Observed.RUNNING,
    )


@pytest.fixture
def path(monkeypatch):
    with tempfile.TemporaryDirectory(prefix="gttest-f-") as folder:  # a socket's path must be short
        path = Path(folder) / "run" / "consoles.sock"
        monkeypatch.setattr(wire, "socket_path", lambda: path)
        yield path


@pytest.fixture
def road(trail_that_can_be_flushed, cast, machine, path):
    """Rows that other threads see, and where the broker will listen."""
    return path
