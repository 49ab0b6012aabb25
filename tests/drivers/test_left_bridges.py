"""A bridge that libvirt left when it ended while it made or removed a network."""

import libvirt
import pytest

from portal.drivers.errors import BridgeTaken
from portal.drivers.libvirt.errors import translate


@pytest.mark.parametrize(
    "words",
    [
        "error creating bridge interface gttbr80: File exists",
        "internal error: Network is already in use by interface gttbr80",
    ],
)
def test_a_bridge_that_is_left_is_told(words):
    """Red when translate() does not look for either sentence of libvirt's."""
    assert isinstance(translate(libvirt.libvirtError(words)), BridgeTaken)
