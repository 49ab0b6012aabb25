"""The contract: what cards are limited to. What traffic makes of it, tests/vms shows."""

import re
import uuid
from typing import Any

import pytest

from portal.drivers import errors
from portal.drivers.fake import FakeDriver
from portal.drivers.inspection import Kind, inspect
from portal.drivers.types import BANDWIDTH, MOST_BANDWIDTH, DomainSpec
from tests.drivers.contract.bench import Bench
from tests.shaping import can_shape, shaped

MAC = "52:54:00:aa:bb:01"
NONE = dict.fromkeys(BANDWIDTH, 0)
SOME = NONE | {"inbound_average": 1000, "inbound_peak": 2000, "inbound_burst": 512, "outbound_average": 128}
TOLD = {"inbound": {"average": 1000, "peak": 2000, "burst": 512}, "outbound": {"average": 128}}


@pytest.fixture
def domain(bench: Bench) -> DomainSpec:
    """A domain that is defined, and off."""
    spec = bench.domain()
    bench.driver.define(spec)
    return spec


def devices(text: str) -> dict[str, Any]:
    found: dict[str, Any] = inspect(Kind.DOMAIN, text.encode()).understood["devices"]
    return found


def limits(text: str) -> dict[str, Any]:
    [card] = devices(text)["interfaces"]
    return dict(card.get("limits", {}))


def device(text: str) -> str:
    """Return the name of the card on its host."""
    found = re.search(r"<target dev=.(vnet\d+)", text)
    return found.group(1) if found else ""


def shapes(bench: Bench) -> bool:
    return isinstance(bench.driver, FakeDriver) or can_shape()


@pytest.mark.parametrize("on", [True, False])
def test_a_card_is_limited_and_set_free(bench: Bench, domain: DomainSpec, on: bool) -> None:
    """Red when either side is left out, or 0 is taken for a limit."""
    driver = bench.driver
    if on and not shapes(bench):
        pytest.skip("this kernel lacks what limits cards; see tests/vms/test_bandwidth_live.py")
    if on:
        driver.start(domain.uuid)
    before = driver.definition(domain.uuid)
    other = {"outbound": {"average": 5, "burst": 6}}
    as_limits = NONE | {"outbound_average": 5, "outbound_burst": 6}
    for wanted, seen in ((SOME, TOLD), (SOME, TOLD), (as_limits, other), (SOME, TOLD)):
        driver.limit_nic(domain.uuid, MAC, wanted)
        made = driver.definition(domain.uuid)
        assert [limits(text) for text in (made.persistent, made.running) if text] == [seen] * (1 + on)
    driver.limit_nic(domain.uuid, MAC, SOME, as_limits)
    made = driver.definition(domain.uuid)
    assert limits(made.persistent) == TOLD and (not on or limits(made.running) == other)
    with pytest.raises(errors.DeviceNotFound):
        driver.limit_nic(domain.uuid, "52:54:00:aa:bb:99", NONE)
    assert driver.definition(domain.uuid) == made
    driver.limit_nic(domain.uuid, MAC, NONE)
    after = driver.definition(domain.uuid)
    assert devices(after.persistent) == devices(before.persistent)
    assert not on or limits(after.running) == {}


def test_a_host_that_cannot_limit_says_so_and_nothing_is_changed(bench: Bench, domain: DomainSpec) -> None:
    """Red when the definition comes before what runs, or the half that libvirt made stays."""
    driver = bench.driver
    if isinstance(driver, FakeDriver):
        driver.shapes = False
    elif can_shape():
        pytest.skip("this kernel has what limits cards")
    driver.start(domain.uuid)
    before = driver.definition(domain.uuid)
    for wanted in (SOME, NONE | {"outbound_average": 9}):
        with pytest.raises(errors.NoShaping):
            driver.limit_nic(domain.uuid, MAC, wanted)
        made = driver.definition(domain.uuid)
        assert made == before
        # Without a name tc tells of all cards of the host.
        assert isinstance(driver, FakeDriver) or shaped(device(made.running) or "none") == ""
    # What has no limits can be said to have none anywhere.
    driver.limit_nic(domain.uuid, MAC, NONE)
    driver.destroy(domain.uuid)
    driver.limit_nic(domain.uuid, MAC, SOME)
    assert limits(driver.definition(domain.uuid).persistent) == TOLD


def test_a_machine_with_limits_does_not_start_where_the_host_cannot_limit(
    bench: Bench, domain: DomainSpec
) -> None:
    """Red when what the host says of its program is no word that people can read."""
    if shapes(bench):
        pytest.skip("it does here")
    bench.driver.limit_nic(domain.uuid, MAC, SOME)
    with pytest.raises(errors.NoShaping):
        bench.driver.start(domain.uuid)
    bench.driver.limit_nic(domain.uuid, MAC, NONE)
    bench.driver.start(domain.uuid)


def test_a_floor_that_somebody_set_stays(bench: Bench, domain: DomainSpec) -> None:
    """Red when the floor is not said again: libvirt takes the whole of what is inbound for the new one."""
    driver, found = bench.driver, bench.driver.definition(domain.uuid)
    driver.redefine(
        domain.uuid, {"devices": {"interfaces": [{"limits": {"inbound": {"floor": 100}}}]}}, found.digest
    )
    floor = {"inbound": {"floor": 100}}
    driver.limit_nic(domain.uuid, MAC, SOME)
    made = limits(driver.definition(domain.uuid).persistent)
    assert made == {**TOLD, "inbound": TOLD["inbound"] | floor["inbound"]}
    driver.limit_nic(domain.uuid, MAC, NONE)
    assert limits(driver.definition(domain.uuid).persistent) == floor


def test_what_is_not_there_is_said(bench: Bench) -> None:
    with pytest.raises(errors.DomainNotFound):
        bench.driver.limit_nic(str(uuid.uuid4()), MAC, NONE)


@pytest.mark.parametrize(
    ("mac", "wanted"),
    [
        ("<&>", NONE),
        (MAC, {}),
        (MAC, {**NONE, "inbound_floor": 1}),
        (MAC, {**NONE, "inbound_average": -1}),
        (MAC, {**NONE, "outbound_average": MOST_BANDWIDTH + 1}),
        (MAC, {**NONE, "outbound_burst": 5}),
        (MAC, {**NONE, "inbound_peak": 5}),
    ],
)
def test_hostile_values_are_refused(bench: Bench, domain: DomainSpec, mac: str, wanted: Any) -> None:
    """Red when a value reaches the host unchecked, also of what runs."""
    driver = bench.driver
    before = driver.definition(domain.uuid)
    for call in (
        lambda: driver.limit_nic(domain.uuid, mac, wanted),
        lambda: driver.limit_nic(domain.uuid, mac, NONE, wanted),
    ):
        with pytest.raises(errors.InvalidSpec):
            call()
    assert driver.definition(domain.uuid) == before
