"""Who enrols hosts, and a state of the test's own for the files by which hosts are reached."""

import pytest

from portal.hosts import connections
from portal.operations import runner
from portal.operations.services import claim


@pytest.fixture
def own_state(settings, tmp_path, monkeypatch):
    """Keys and ssh's files in a folder of the test's own; return it."""
    settings.ENCRYPTION_KEYS = tmp_path / "keys"
    monkeypatch.setattr(connections, "STATE_DIR", tmp_path)
    return tmp_path


def carry_out(operation):
    """Carry a queued operation out here, as a worker would, and return it."""
    claimed = claim(operation.pk, worker="test")
    runner.carry_on(claimed, worker="test")
    return claimed
