"""One machine is enrolled once, by whatever address it is reached."""

import pytest
from django.urls import reverse

from portal.accounts.models import Notice
from portal.drivers.fake import FakeDriver
from portal.hosts import services, steps
from portal.hosts.limits import set_limits
from portal.hosts.models import Host
from portal.hosts.removal import remove_host
from portal.operations.models import Counter
from portal.operations.states import State
from tests.hosts.conftest import carry_out

pytestmark = [pytest.mark.database, pytest.mark.django_db, pytest.mark.usefixtures("own_state")]
PLACEHOLDER = "03000200-0400-0500-0006-000700080009"


@pytest.fixture
def machines(monkeypatch):
    """Fake machines by the host's address; two addresses may lead to one."""
    found = {}

    def call(host_id, verb, *args, timeout):
        uri = Host.objects.get(pk=host_id).uri
        return getattr(found.setdefault(uri, FakeDriver(uri)), verb)(*args)

    monkeypatch.setattr(steps, "call", call)
    return found


@pytest.fixture
def enrol(chief):
    """Return what enrols a host by name, of that address, and returns the operation."""

    def enrol(name, uri=None):
        asked = services.enrol_host(
            actor=chief, name=name, uri=uri or f"fake:///{name}", pool_path="/srv/gatehouse"
        )
        return carry_out(asked)

    return enrol


def test_one_machine_by_two_addresses_is_enrolled_once(chief, client, machines, enrol):
    """Red when Reach does not keep the UUID, or counts what the host has before it compares."""
    assert enrol("rack-1").state == State.SUCCEEDED
    machines["fake:///again"] = machines["fake:///rack-1"]
    second = enrol("again")
    assert second.state == State.FAILED
    assert list(second.steps.exclude(error_code="").values_list("name", "error_code", "error_raw")) == [
        ("reach", "host_enrolled", "rack-1")
    ]
    again = Host.objects.get(name="again")
    assert (again.host_uuid, again.accelerator, again.readiness) == (None, "", {})
    assert not Counter.objects.filter(scope=again.scope).exists() and not again.pools.exists()
    client.force_login(chief)
    page = client.get(reverse("hosts:join", args=[again.pk])).content.decode()
    assert "This is the machine that is enrolled as rack-1 already" in page
    assert "rack-1" in Notice.objects.get(kind="operation.ended").detail
    first = Host.objects.get(name="rack-1")
    assert str(first.host_uuid) in client.get(reverse("hosts:detail", args=[first.pk])).content.decode()
    assert carry_out(services.enrol_again(actor=chief, host=first)).state == State.SUCCEEDED
    remove_host(actor=chief, host=first, confirm_name="rack-1")
    assert carry_out(services.enrol_again(actor=chief, host=again)).state == State.SUCCEEDED


@pytest.mark.parametrize("told", [PLACEHOLDER, ""])
def test_machines_that_do_not_say_who_they_are_do_not_clash(machines, enrol, told):
    """Red when a placeholder, or that nothing is told, is kept as a UUID."""
    for name in ("rack-1", "rack-2"):
        machines[f"fake:///{name}"] = FakeDriver()
        machines[f"fake:///{name}"].host_uuid = told
        assert enrol(name).state == State.SUCCEEDED
    assert list(Host.objects.values_list("host_uuid", flat=True)) == [None, None]


def test_a_machine_that_was_exchanged_is_known_by_its_new_uuid(chief, machines, enrol):
    """Red when the first UUID is kept for ever."""
    enrol("rack-1")
    machines["fake:///rack-1"] = FakeDriver("fake:///new-board")
    host = Host.objects.get()
    set_limits(host)
    assert carry_out(services.enrol_again(actor=chief, host=host)).state == State.SUCCEEDED
    host.refresh_from_db()
    assert str(host.host_uuid) == machines["fake:///rack-1"].host_uuid
