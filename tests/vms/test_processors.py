"""More processors: at once with KVM, at the next start for a machine that runs emulated."""

import uuid

import pytest
from django.urls import reverse as url
from django.utils import timezone

from portal.drivers.inspection import Kind, changed, inspect
from portal.drivers.types import Accelerator, DomainDefinition, DomainState
from portal.operations import messages
from portal.operations.models import Counter
from portal.operations.states import State
from tests.vms.test_memory import consent, define, host, look, off, remarks, work  # noqa: F401 (a fixture)
from vms import noted, pending
from vms.changes import resizing

pytestmark = [pytest.mark.database, pytest.mark.django_db]
KVM = {"vcpu_ceiling": 4, "accelerator": Accelerator.KVM}
EMULATED = {**KVM, "accelerator": Accelerator.EMULATION}


def ask(cast, here, count=3):
    here.vm.refresh_from_db()
    now = resizing.sizes_of(here.vm)
    doing = {"actor": cast.requester, "machine": here.vm, "seen": now, "why": "work", "token": uuid.uuid4()}
    return consent(cast, resizing.request_resize(**doing, sizes={**now, "vcpu": count}))


def told(here):
    """Return the vCPUs of the row, of the definition and of what runs."""
    here.vm.refresh_from_db()
    found = here.driver.definition(here.uuid)
    sides = [inspect(Kind.DOMAIN, text.encode()).understood for text in (found.persistent, found.running)]
    return [here.vm.vcpus, *(side.get("current_vcpus", side["vcpus"]) for side in sides)]


def when(client, cast, here):
    """Return what the page says of when more vCPUs come."""
    client.force_login(cast.requester)
    text = client.get(url("vms:size", args=[here.vm.pk])).content.decode()
    return " ".join(text.split("More vCPUs</dt>")[1].split("</dd>")[0].replace("<dd>", "").split())


def test_what_runs_by_the_processor_itself_gets_them_at_once(client, cast, host):  # noqa: F811
    """Red when `is_emulated(Ground(running))` in PlugVcpus is turned round (`not is_emulated(...)`)."""
    define(host, **KVM)
    assert when(client, cast, host).startswith("At once, up to 4 while it runs")
    ended = work(ask(cast, host))
    assert ended.state == State.SUCCEEDED and remarks(ended) == []
    assert told(host) == [3, 3, 3]


def test_what_is_emulated_gets_them_at_its_next_start(client, cast, host):  # noqa: F811
    """Red when `return "vcpus_emulated"` in PlugVcpus is `pass`; and when hot_ceiling() does not ask it."""
    define(host, **EMULATED)
    text = when(client, cast, host)
    assert text.startswith("When it is switched off and started again. It runs emulated, and")
    ended = work(ask(cast, host))
    assert ended.state == State.SUCCEEDED and remarks(ended) == ["vcpus_emulated"]
    assert messages.sentence("vcpus_emulated", "").startswith("It gets the processors when it is switched")
    assert told(host) == [3, 3, 1]
    assert set(Counter.objects.filter(resource="vcpu").values_list("held", flat=True)) <= {0}
    look(host)
    [row] = pending.look(host.vm, noted.of(host.vm)).rows
    assert (row.label, row.before, row.after) == ("vCPUs", "1", "3")
    off(host)
    assert when(client, cast, host) == "From its start on: the machine is off."
    host.driver.start(host.uuid)
    assert told(host) == [3, 3, 3]


def test_a_machine_that_was_started_anew_emulated_meanwhile_waits(cast, host):  # noqa: F811
    """Red when PlugVcpus does not look itself: `return "vcpus_emulated"` is `pass`."""
    define(host, **EMULATED)
    kept = host.driver.definition(host.uuid)
    ran = changed(Kind.DOMAIN, kept.running.encode(), {"type": "kvm"})
    noted.note(host.row.pk, host.uuid, DomainDefinition(kept.persistent, ran), timezone.now())
    assert resizing.hot_ceiling(host.vm) == (4, "")
    assert remarks(work(ask(cast, host))) == ["vcpus_emulated"] and told(host) == [3, 3, 1]


def test_what_is_off_gets_them_with_its_start_and_makes_no_remark(cast, host):  # noqa: F811
    define(host, **EMULATED)
    off(host)
    ended = work(ask(cast, host))
    assert ended.state == State.SUCCEEDED and remarks(ended) == []
    assert host.driver.domain_info(host.uuid).state is DomainState.SHUTOFF
