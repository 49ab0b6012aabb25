"""Memory and its ceiling: what the balloon changes at once, what waits for a start, what a guest ignores."""

import uuid
from types import SimpleNamespace

import pytest
from django.urls import reverse as url
from django.utils import timezone

from portal.core.errors import Denied
from portal.drivers.errors import CallTimeout, HostUnreachable
from portal.drivers.fake import FakeDriver
from portal.drivers.inspection import Kind, inspect
from portal.drivers.types import DeviceModel, DiskSpec, DomainSpec
from portal.hosts import steps
from portal.operations import ledger, revisions, runner, scopes, services, words
from portal.operations.live import progress
from portal.operations.models import Counter, Operation
from portal.operations.states import State
from tests.factories import GIB, MIB, make_host, make_machine
from vms import live, noted
from vms.adoption.found import balloon_of
from vms.changes import memory, resizing
from vms.editing import Clash
from vms.models import VirtualMachine

pytestmark = [pytest.mark.database, pytest.mark.django_db]


@pytest.fixture
def host(cast, monkeypatch):
    """A fake host, and a machine on it that runs with 1 GiB of at most 4."""
    driver = FakeDriver()
    here = SimpleNamespace(driver=driver, before=lambda verb: None)

    def call(_host, verb, *args, timeout=0):
        here.before(verb)
        return getattr(driver, verb)(*args)

    monkeypatch.setattr(steps, "call", call)
    monkeypatch.setattr(runner, "PATIENCE", 0)
    here.row = make_host()
    here.vm = make_machine(cast, "example", here.row, memory=4 * GIB, balloon=GIB)
    here.uuid = str(here.vm.uuid)
    Counter.objects.create(scope=here.row.scope, resource="memory", limit=16 * GIB)
    amounts = {(here.row.scope, "memory"): 4 * GIB, (here.row.scope, "vcpu"): 1}
    ledger.hold(here.vm.built_by, amounts | {(scopes.of_project(cast.project), "memory"): 4 * GIB})
    ledger.use(here.vm.built_by)
    define(here)
    return here


def define(host, **changes):
    """Make the machine's domain anew, let it run, and let the portal see it."""
    driver = host.driver
    if driver.list_domains():
        driver.destroy(host.uuid)
        driver.undefine(host.uuid)
    spec = DomainSpec("example", host.uuid, 1, host.vm.memory, memory_now_bytes=host.vm.balloon or 0)
    driver.define(DomainSpec(**{name: getattr(spec, name) for name in spec.__slots__} | changes))
    driver.start(host.uuid)
    look(host)


def look(host):
    noted.note(host.row.pk, host.uuid, host.driver.definition(host.uuid), timezone.now())
    VirtualMachine.objects.update(observed_state=host.driver.domain_info(host.uuid).state.value)
    host.vm.refresh_from_db()


def off(host):
    host.driver.destroy(host.uuid)
    look(host)


def resize(cast, host, now, ceiling=None, *, why="more work"):
    host.vm.refresh_from_db()
    sizes = {"vcpu": 1, "memory": ceiling or now, **({"memory_now": now} if ceiling else {})}
    return resizing.request_resize(
        actor=cast.requester,
        machine=host.vm,
        sizes=sizes,
        seen=resizing.sizes_of(host.vm),
        why=why,
        token=uuid.uuid4(),
    )


def consent(cast, asked):
    return services.decide(actor=cast.approver, operation=asked, spec_hash=asked.spec_hash, approved=True)


def work(operation, worker="worker"):
    runner.carry_on(services.claim(operation.pk, worker=worker), worker=worker)
    return Operation.objects.get(pk=operation.pk)


def told(host):
    """Return memory now and ceiling in GiB: of the row, of the definition, of what runs."""
    host.vm.refresh_from_db()
    found = host.driver.definition(host.uuid)
    said = [(host.vm.memory_now / GIB, host.vm.memory / GIB)]
    for text in filter(None, (found.persistent, found.running)):
        seen = inspect(Kind.DOMAIN, text.encode()).understood
        most = seen["memory_bytes"]
        said.append((seen.get("current_memory_bytes", most) / GIB, most / GIB))
    return said


def remarks(operation):
    return [step.remark for step in operation.steps.order_by("index") if step.remark]


def counted(host):
    row = Counter.objects.get(scope=host.row.scope, resource="memory")
    return row.held / GIB, row.used / GIB


def test_below_the_ceiling_it_is_changed_at_once_and_takes_nothing(cast, host):
    """Red when the balloon is left out, or what it leaves the guest is what counts."""
    for now in (3, 2, 0.5):
        begun = resize(cast, host, int(now * GIB), 4 * GIB, why="")
        assert begun.state == State.QUEUED
        ended = work(begun)
        assert ended.state == State.SUCCEEDED and remarks(ended) == []
        assert told(host) == [(now, 4)] * 3 and counted(host) == (0, 4)
    # The whole of it, and there is no balloon to speak of any more.
    assert work(resize(cast, host, 4 * GIB)).state == State.SUCCEEDED
    assert told(host) == [(4, 4)] * 3 and host.vm.balloon is None


def test_beyond_the_ceiling_is_for_the_next_start(cast, host):
    """Red when the balloon is told more than the machine was started with, or nothing of what it can give."""
    asked = resize(cast, host, 6 * GIB, 8 * GIB)
    assert asked.state == State.AWAITING_APPROVAL
    ended = work(consent(cast, asked))
    assert remarks(ended) == ["memory_at_next_start"]
    assert told(host) == [(6, 8), (6, 8), (4, 4)] and counted(host) == (0, 8)
    off(host)
    host.driver.start(host.uuid)
    look(host)
    assert told(host) == [(6, 8)] * 3 and not memory.sights([host.vm])[host.vm.pk].differs


def test_a_higher_ceiling_alone_leaves_the_guest_what_it_has(cast, host):
    ended = work(consent(cast, resize(cast, host, GIB, 8 * GIB)))
    assert remarks(ended) == ["ceiling_at_next_start"]
    assert told(host) == [(1, 8), (1, 8), (1, 4)]


def test_a_lower_ceiling_waits_until_it_is_off(cast, host):
    with pytest.raises(Denied, match="only while it is off"):
        resize(cast, host, GIB, 2 * GIB)
    off(host)
    assert remarks(work(resize(cast, host, GIB, 2 * GIB))) == []
    assert told(host) == [(1, 2)] * 2 and counted(host) == (0, 2)


@pytest.mark.parametrize(
    ("now", "remark", "guest", "sentence"),
    [(3, "memory_not_taken", 1, "has not taken the rest"), (1, "memory_kept", 3, "no driver of the balloon")],
)
def test_what_a_guest_ignores_is_told_and_not_pretended(cast, host, client, now, remark, guest, sentence):
    """Red when what was asked for is shown in place of what the guest has, or that counts as a failure."""
    if guest == 3:
        work(resize(cast, host, 3 * GIB, 4 * GIB))
    host.driver.guest_heeds = False
    ended = work(resize(cast, host, now * GIB, 4 * GIB))
    assert (ended.state, remarks(ended)) == (State.SUCCEEDED, [remark])
    assert told(host) == [(now, 4), (now, 4), (guest, 4)]
    assert "guest was told" in "".join(step["remark"] for step in progress(ended)["steps"])
    client.force_login(cast.requester)
    page = client.get(url("vms:detail", args=[host.vm.pk])).content.decode()
    assert f"Its guest has {guest} GiB" in page and sentence in page
    assert f"{now} GiB, and up to 4 GiB while it runs" in page
    [panel] = live._heads(cast.requester, [str(host.vm.pk)]).values()
    assert f"Its guest has {guest} GiB" in panel and sentence in panel


def test_a_machine_without_a_ceiling_of_its_own_shows_none(cast, host, client):
    """Red when who does not care for ceilings is shown one."""
    VirtualMachine.objects.update(balloon=None)
    host.vm.refresh_from_db()
    define(host)
    client.force_login(cast.requester)
    page = client.get(url("vms:detail", args=[host.vm.pk])).content.decode()
    assert "4 GiB" in page and "while it runs" not in page and "Its guest has" not in page
    page = client.get(url("vms:size", args=[host.vm.pk]))
    assert page.context["form"].initial["ceiling"] == "" and page.context["form"].initial["memory"] == 4 * GIB
    asked = resize(cast, host, 6 * GIB)
    assert "memory_now" not in asked.frozen["pinned"]
    work(consent(cast, asked))
    assert told(host) == [(6, 6), (6, 6), (4, 4)]


@pytest.mark.parametrize("verb", ["redefine", "set_balloon", "definition", "domain_info"])
def test_a_worker_that_dies_anywhere_loses_nothing(cast, host, verb):
    """Red when the balloon is only told where the worker that wrote the definition lived on."""

    class Died(BaseException):
        pass

    begun = services.claim(resize(cast, host, 3 * GIB, 4 * GIB).pk, worker="worker")
    calls = []

    def before(called):
        calls.append(called)
        if called == verb and calls.count(verb) == 1:
            raise Died

    host.before = before
    with pytest.raises(Died):
        runner.carry_on(begun, worker="worker")
    runner.carry_on(Operation.objects.get(pk=begun.pk), worker="reaper")
    assert Operation.objects.get(pk=begun.pk).state == State.SUCCEEDED
    assert told(host) == [(3, 4)] * 3


def test_what_cannot_go_on_is_taken_back_also_from_the_guest(cast, host):
    """Red when SetBalloon has no undo: the guest would keep what nobody counts on."""
    begun = services.claim(resize(cast, host, 3 * GIB, 4 * GIB).pk, worker="worker")

    def before(called):
        # The call was made, and then the domain seems gone.
        if called == "set_balloon":
            host.before = lambda verb: None
            host.driver.set_balloon(host.uuid, 3 * GIB)
            raise ValueError("a fault of the portal's own")

    host.before = before
    runner.carry_on(begun, worker="worker")
    assert Operation.objects.get(pk=begun.pk).state == State.FAILED
    assert told(host) == [(1, 4)] * 3 and counted(host) == (0, 4)


@pytest.mark.parametrize("error", [CallTimeout("too long"), HostUnreachable("for a moment")], ids=str)
def test_a_host_that_does_not_say_is_told_of(cast, host, error, monkeypatch):
    monkeypatch.setattr(steps, "AGAIN", 0)
    monkeypatch.setattr(steps, "PAUSE", 0)

    def before(called):
        if called == "set_balloon":
            raise error

    host.before = before
    ended = work(resize(cast, host, 3 * GIB, 4 * GIB))
    assert (ended.state, remarks(ended)) == (State.SUCCEEDED, ["memory_unsure"])
    assert told(host)[:2] == [(3, 4)] * 2


def test_a_libvirt_that_starts_again_is_asked_again(cast, host, monkeypatch):
    """Red when SetBalloon makes a remark of what only has to be asked once more."""
    monkeypatch.setattr(steps, "PAUSE", 0)
    dead = [HostUnreachable("libvirtd was killed")]

    def before(called):
        if called == "set_balloon" and dead:
            raise dead.pop()

    host.before = before
    ended = work(resize(cast, host, 3 * GIB, 4 * GIB))
    assert not dead and (ended.state, remarks(ended)) == (State.SUCCEEDED, [])


def test_one_that_goes_off_meanwhile_has_it_at_its_start(cast, host):
    begun = resize(cast, host, 3 * GIB, 4 * GIB)
    host.before = lambda verb: host.driver.destroy(host.uuid) if verb == "set_balloon" else None
    ended = work(begun)
    assert (ended.state, remarks(ended)) == (State.SUCCEEDED, [])
    assert told(host) == [(3, 4)] * 2


@pytest.mark.parametrize(
    ("now", "ceiling", "field", "sentence"),
    [
        (64 * MIB, 4 * GIB, "memory", "needs at least 256 MiB"),
        (5 * GIB, 4 * GIB, "ceiling", "no less than the memory"),
        (GIB + 1, 4 * GIB, "memory", "whole MiB"),
        (GIB, 5 * GIB + 1, "ceiling", "whole MiB"),
        (GIB, 4 * GIB, None, "has this size already"),
    ],
)
def test_what_cannot_be_is_refused_at_its_field(cast, host, now, ceiling, field, sentence):
    """Red when the least memory of the image is asked of the ceiling alone."""
    type(host.vm.image).objects.update(min_memory=256 * MIB)
    host.vm = VirtualMachine.objects.get()
    with pytest.raises(Denied, match=sentence) as denied:
        resize(cast, host, now, ceiling)
    assert denied.value.field == (field or denied.value.field)


def test_an_image_that_needs_more_by_now_leaves_a_machine_what_it_has(cast, host):
    """Red when a machine below the image's new least can be changed in nothing, or go further down, or when
    a request that waits is not checked again.
    """
    waiting = resize(cast, host, 512 * MIB, 8 * GIB)
    type(host.vm.image).objects.update(min_memory=3 * GIB)
    host.vm = VirtualMachine.objects.get()
    with pytest.raises(Denied, match="needs at least 3 GiB"):
        consent(cast, waiting)
    services.withdraw(actor=cast.requester, operation=waiting)
    with pytest.raises(Denied, match="needs at least 3 GiB"):
        resize(cast, host, 512 * MIB, 4 * GIB)
    asked = resize(cast, host, GIB, 8 * GIB)
    work(consent(cast, asked))
    assert told(host)[0] == (1, 8)


def test_without_a_balloon_a_machine_has_all_of_its_memory(cast, host, client):
    """Red when a ceiling is promised to a machine that starts with all of it and keeps it."""
    VirtualMachine.objects.update(balloon=None, devices="emulated")
    host.vm.refresh_from_db()
    define(host, devices=DeviceModel.EMULATED, disks=(DiskSpec("/d.qcow2", "sda"),))
    with pytest.raises(Denied, match="has no balloon") as denied:
        resize(cast, host, GIB, 4 * GIB)
    assert denied.value.field == "ceiling"
    client.force_login(cast.requester)
    page = client.get(url("vms:size", args=[host.vm.pk])).content.decode()
    assert "always has all of its memory" in page and "More and less at once" not in page


def test_an_approver_who_gives_a_lower_ceiling_gives_no_more_memory_than_it(cast, host):
    """Red when wanted() is what was asked for: the definition would be refused."""
    asked = resize(cast, host, 7 * GIB, 8 * GIB)
    lowered = revisions.lower(
        actor=cast.approver, operation=asked, spec_hash=asked.spec_hash, sizes={"memory": 6 * GIB}
    )
    facts = {fact.label: fact.value for fact in words.facts(lowered.frozen)}
    assert facts["Memory"] == "4 GiB → 6 GiB" and facts["Memory now"] == "1 GiB → 6 GiB"
    work(consent(cast, lowered))
    assert told(host) == [(6, 6), (6, 6), (4, 4)] and host.vm.balloon is None


def test_what_the_balloon_changed_meanwhile_must_be_asked_anew(cast, host):
    """Red when place() looks at the ceiling alone: the guest would get what somebody else took from it."""
    asked = resize(cast, host, 2 * GIB, 8 * GIB)
    seen = resizing.sizes_of(host.vm)
    work(resize(cast, host, 3 * GIB, 4 * GIB))
    with pytest.raises(Denied, match="another size by now"):
        consent(cast, asked)
    with pytest.raises(Clash):
        resizing.request_resize(
            actor=cast.requester,
            machine=VirtualMachine.objects.get(),
            sizes={"vcpu": 2, "memory": 4 * GIB, "memory_now": GIB},
            seen=seen,
            why="work",
            token=uuid.uuid4(),
        )


def test_the_page_says_when_it_counts_and_changes_it(cast, host, client):
    """Red when the form takes the ceiling for the memory, or forgets the one that is there."""
    client.force_login(cast.requester)
    address = url("vms:size", args=[host.vm.pk])
    page = client.get(address)
    text = page.content.decode()
    assert "More and less at once, up to 4 GiB" in text and "gets slow, or ends programs" in text
    assert "Quotas and the host count the ceiling" in text
    initial = page.context["form"].initial
    assert (initial["memory"], initial["ceiling"]) == (GIB, 4 * GIB)
    posted = {**initial, "memory": "2", "ceiling": "4"}
    answer = client.post(address, posted)
    begun = Operation.objects.get(kind="vm.resize")
    assert answer.url == url("operations:detail", args=[begun.pk]) and begun.state == State.QUEUED
    assert "1 GiB → 2 GiB" in client.get(answer.url).content.decode()
    work(begun)

    answer = client.post(address, {**posted, "memory": "3"})
    assert answer.status_code == 422 and "Somebody changed this while you looked" in answer.content.decode()
    assert "<del>1 GiB</del>" in answer.content.decode()
    page = client.get(address)
    answer = client.post(address, {**page.context["form"].initial, "memory": "5", "ceiling": "4"})
    assert answer.status_code == 422 and answer.context["form"].errors.keys() == {"ceiling"}
    client.post(address, {**page.context["form"].initial, "memory": "5", "ceiling": "6", "why": "work"})
    asked = Operation.objects.get(kind="vm.resize", state=State.AWAITING_APPROVAL)
    form = client.get(f"{address}?edit={asked.pk}").context["form"]
    assert (form.initial["memory"], form.initial["ceiling"]) == (5 * GIB, 6 * GIB)


@pytest.mark.parametrize(
    ("defined", "left"),
    [
        ({"memory_bytes": 4 * GIB, "current_memory_bytes": GIB}, GIB),
        ({"memory_bytes": 4 * GIB, "current_memory_bytes": 4 * GIB}, None),
        ({"memory_bytes": 4 * GIB}, None),
    ],
)
def test_what_others_defined_keeps_its_balloon(defined, left):
    assert balloon_of(defined) == left
