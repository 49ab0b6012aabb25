"""What a host tells of its devices when it is enrolled and proven again, and what when it does not."""

from dataclasses import asdict

import pytest

from portal.drivers.errors import CallTimeout, HostUnreachable, NotSupported
from portal.drivers.fake import FakeDriver
from portal.drivers.types import HostDevice
from portal.hosts import services, steps
from portal.hosts.models import Host
from portal.operations import runner
from portal.operations.messages import sentence
from portal.operations.states import State
from tests.hosts.conftest import carry_out

pytestmark = [pytest.mark.database, pytest.mark.django_db, pytest.mark.usefixtures("own_state")]
STICK = HostDevice("usb:058f:6387", "Stick", "1.4")


@pytest.fixture
def fake(monkeypatch):
    driver = FakeDriver()
    driver.devices = (STICK,)
    monkeypatch.setattr(steps, "call", lambda host, verb, *args, timeout: getattr(driver, verb)(*args))
    monkeypatch.setattr(runner, "PATIENCE", 0)
    return driver


@pytest.fixture
def enrolled(chief, fake):
    asked = services.enrol_host(actor=chief, name="rack", uri="fake:///", pool_path="/srv/gatehouse")
    assert carry_out(asked).state == State.SUCCEEDED
    return Host.objects.get()


def test_a_host_that_is_proven_again_tells_what_was_plugged_in(chief, fake, enrolled):
    """Red when Reach does not ask for devices, or asks once for all time."""
    assert enrolled.readiness["devices"] == [asdict(STICK)]
    fake.devices = ()
    done = carry_out(services.enrol_again(actor=chief, host=enrolled))
    enrolled.refresh_from_db()
    assert done.state == State.SUCCEEDED and enrolled.readiness["devices"] == []
    assert done.steps.get(name="reach").remark == ""


@pytest.mark.parametrize("error", [CallTimeout, HostUnreachable, NotSupported])
def test_a_host_that_does_not_tell_its_devices_is_proven_all_the_same(
    chief, fake, enrolled, monkeypatch, error
):
    """Red when a host whose devices hang, or end the child that asks, is one that does not answer."""

    def refuse():
        raise error("no")

    monkeypatch.setattr(fake, "host_devices", refuse)
    done = carry_out(services.enrol_again(actor=chief, host=enrolled))
    enrolled.refresh_from_db()
    record = done.steps.get(name="reach")
    assert done.state == State.SUCCEEDED and enrolled.readiness["devices"] == [asdict(STICK)]
    assert "did not tell its PCI and USB devices" in sentence(record.remark)


def test_a_host_that_never_told_any_is_enrolled_without(chief, fake, monkeypatch):
    """Red when what it told before is needed."""

    def refuse():
        raise CallTimeout("no")

    monkeypatch.setattr(fake, "host_devices", refuse)
    asked = services.enrol_host(actor=chief, name="rack", uri="fake:///", pool_path="/srv/gatehouse")
    assert carry_out(asked).state == State.SUCCEEDED and Host.objects.get().readiness["devices"] == []
