"""What a guest receives under a limit of its card, on a further host with a real libvirtd.

Where this machine's kernel lacks what libvirt asks of it, what goes out is looked at in words alone.
"""

import time

import pytest

from portal.drivers.inspection import Kind, inspect
from portal.operations.states import State
from tests.factories import MIB
from tests.killed_turns import kills, opened, problems, worker  # noqa: F401 (fixtures)
from tests.shaping import can_shape
from tests.vms.killed_stage import MAC, There, stage  # noqa: F401 (a fixture)
from vms import noted
from vms.changes.devices import bandwidth, rewiring

pytestmark = [
    pytest.mark.database,
    pytest.mark.live,
    pytest.mark.usefixtures("trail_that_can_be_flushed"),
]
#: What tc says of 512 as libvirt hands it on: a kilobyte a second of tc's is 8,000 bits.
RATE = "rate 4096Kbit"
#: Sends for two seconds, and for 64 MiB at most.
FLOOD = """import socket, sys, time
sending, end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), time.monotonic() + 2
for _turn in range(64 << 10):
    if time.monotonic() > end:
        break
    try:
        sending.sendto(bytes(1024), (sys.argv[1], 9))
    except OSError:
        time.sleep(0.001)
"""


@pytest.fixture
def there(stage, worker, cast, chief):  # noqa: F811
    found = There(stage, worker, cast, chief)
    found.domain = str(stage.on)
    assert found.carry_out(lambda scene: scene.adopt(found.domain)).state == State.SUCCEEDED
    return found


def limit(there, **wanted):
    def act(there):
        seen = bandwidth.limits_of(noted.of(there.machine), MAC)
        return bandwidth.limit_card(**there.doing(mac=MAC, limits=wanted, seen=seen))

    ended = there.carry_out(act)
    assert ended.state == State.SUCCEEDED, problems(ended)


def cards(there):
    """Return the card as it is defined and as it runs."""
    with opened(there.stage.uri) as driver:
        made = driver.definition(there.domain)
    texts = (made.persistent, made.running)
    return [inspect(Kind.DOMAIN, text.encode()).understood["devices"]["interfaces"][0] for text in texts]


def address(there):
    end = time.monotonic() + 60
    with opened(there.stage.uri) as driver:
        while not (found := [one.address for one in driver.leases(there.domain) if one.mac == MAC]):
            assert time.monotonic() < end, "the guest asks for no address"
            time.sleep(0.3)
    return found[0]


def received(there, device):
    """Return how many bytes reach the guest of a flood of two seconds."""
    host = there.stage.host

    def count():
        return int(host.run("cat", f"/sys/class/net/{device}/statistics/tx_bytes"))

    before = count()
    host.run("python3", "-c", FLOOD, address(there))
    return count() - before


def test_what_a_guest_receives_is_limited_while_it_runs(there):
    """Red when inbound and outbound are taken for each other, or what runs is left out."""
    host = there.stage.host
    device = cards(there)[1]["target"]
    free = received(there, device)
    limit(there, inbound_average=512, outbound_average=64, outbound_burst=128)
    told = [bandwidth.of_card(card) for card in cards(there)]
    assert told[0] == told[1] and (told[0]["inbound_average"], told[0]["outbound_burst"]) == (512, 128)
    slow = received(there, device)
    print(free, slow)
    assert slow < 2 * MIB < 4 * MIB < free
    assert RATE in host.run("tc", "class", "show", "dev", device)
    if can_shape():
        assert "police" in host.run("tc", "filter", "show", "dev", device, "parent", "ffff:")
    else:
        lines = (host.folder / "tc.log").read_text().splitlines()
        assert any("police rate 64kbps burst 128kb" in line and device in line for line in lines)
    limit(there)
    assert "htb" not in host.run("tc", "qdisc", "show", "dev", device)
    assert received(there, device) > 4 * MIB
    # Last, for the guest may have another address by then.
    limit(there, inbound_average=512, outbound_average=64, outbound_burst=128)
    networks = {name: getattr(there, name) for name in ("away", "network")}
    for network in networks.values():
        doing = there.doing(mac=MAC, network=network, actor=there.chief)
        ended = there.carry_out(lambda _there, doing=doing: rewiring.rewire_card(**doing))
        assert ended.state == State.SUCCEEDED, problems(ended)
        assert [bandwidth.of_card(card) for card in cards(there)] == told
        assert RATE in host.run("tc", "class", "show", "dev", device)
