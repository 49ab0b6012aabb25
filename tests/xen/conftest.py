"""A host of Xen for the tests of this folder; who has not built its image skips them."""

import pytest

from portal.hosts.watcher import Watcher
from tests.hosts.conftest import own_state as own_state
from tests.xen.machine import XenMachine, is_built


@pytest.fixture(scope="package")
def xen():
    """A real host of Xen, one for all of these tests: each takes away what it defined there."""
    if not is_built():
        pytest.skip("scripts/images/xen-host/build did not build its image")
    with XenMachine() as made:
        yield made


@pytest.fixture
def watcher():
    """What the portal sees its hosts by."""
    made = Watcher()
    yield made
    made.close()
