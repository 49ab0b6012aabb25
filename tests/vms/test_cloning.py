"""Clones: what may be cloned, what it takes, and that the original stays as it is meanwhile."""

import json
import uuid
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse as url
from django.utils import timezone

from networks.models import Port
from portal.accounts import public_keys
from portal.core.errors import Denied
from portal.hosts.models import Host, Image
from portal.operations import revisions, words
from portal.operations.models import Counter, Operation
from portal.operations.registry import kind_of
from portal.operations.services import claim
from portal.operations.states import State
from portal.operations.transitions import move
from tests.factories import GIB, HOST_KEY, make_catalogue, make_network
from tests.vms.test_changes import add, consent, finish, machine, off, see, used  # noqa: F401 (a fixture)
from vms import leases, noted, power
from vms.adoption.services import release_machine
from vms.changes import cloning
from vms.models import Status, VirtualMachine

pytestmark = [pytest.mark.database, pytest.mark.django_db]
MAC = "52:54:00:00:00:01"


@pytest.fixture
def original(machine):  # noqa: F811
    """A machine that is off, with a disk of the portal's and a card."""
    Port.objects.create(network=make_network(), host=machine.host, domain_uuid=machine.uuid, mac=MAC)
    off(machine)
    defined(machine)
    return machine


def defined(machine, *disks, **more):  # noqa: F811
    """Let the portal see its definition, the disk where the row says, and its card."""
    found = [{"source": {"file": "/example/example-vda.qcow2"}}, {}, *disks]
    see(machine, {"devices": {"disks": found, "interfaces": [{"mac": MAC}], **more}}, running=False)


def clone(actor, original, *, name="twin", lease_days=30, why="a try", token=None):
    return cloning.request_clone(
        actor=actor,
        machine=original,
        name=name,
        lease_days=lease_days,
        why=why,
        token=token or uuid.uuid4(),
    )


def test_a_clone_takes_what_its_original_takes_and_has_names_of_its_own(cast, original):
    """Red when place() takes nothing of the host or the pool, or a name of the original is kept."""
    VirtualMachine.objects.update(balloon=GIB // 2)
    asked = clone(cast.requester, original)
    assert used("memory")["project"] == (GIB, GIB) and used("disk")["project"] == (2 * GIB, 2 * GIB)
    consent(cast, asked)
    asked.refresh_from_db()
    assert used("memory")["host"] == (GIB, GIB) and used("disk")["pool"] == (2 * GIB, 2 * GIB)
    twin = VirtualMachine.objects.get(name="twin")
    names = asked.identifiers
    assert twin.status == Status.BUILDING and twin.uuid != original.uuid
    assert (twin.memory, twin.memory_now) == (GIB, GIB // 2)
    [disk] = names["disks"]
    assert names["paths"][disk["source"]] == disk["path"] != disk["source"]
    assert names["macs"][MAC] == Port.objects.get(domain_uuid=twin.uuid).mac != MAC
    finish(asked)
    twin.refresh_from_db()
    assert (twin.status, twin.observed_state, twin.owner) == ("active", "shutoff", cast.requester)
    assert set(used("memory").values()) == {(0, 2 * GIB)} and set(used("disk").values()) == {(0, 4 * GIB)}


def test_a_clone_costs_what_the_original_has_by_now(cast, original):
    """Red when the cost is that of the original's request: policies would judge a machine that was small."""
    item = make_catalogue(original.image, make_network(78)).item
    large = item.flavours.create(name="large", vcpus=4, memory=4 * GIB, disk=GIB, cost_month=40)
    VirtualMachine.objects.update(item_name=item.name)
    spec = {"sizes": {"vcpu": 1, "memory": GIB, "disk": 2 * GIB}, "pinned": {"cost_month": "2.50"}}
    Operation.objects.filter(pk=original.built_by_id).update(spec=json.dumps(spec))
    original.refresh_from_db()

    def cost():
        return cloning.spec_of(original, "twin", 30, "a try").pinned.get("cost_month")

    assert cost() == "2.50"
    original.vcpus = 2
    assert cost() == "40.00"
    # Nobody said what a machine costs that is larger than any size: no rule about costs lets it through.
    original.vcpus = large.vcpus + 1
    assert cost() is None
    item.cost_month_gib = 1
    item.save()
    original.vcpus = 1
    original.disks.update(capacity=5 * GIB)
    assert cost() == "44.00"


def test_who_asks_for_a_clone_can_be_let_in_by_their_own_keys(client, cast, original):
    """Red when a clone lets in whom its original did alone: an operator could not sign in to theirs."""
    theirs = "ssh-ed25519 AAAA-of-the-original a@b"
    mine = public_keys.add(actor=cast.operator, name="laptop", line=f"{HOST_KEY} me@laptop")
    spec = {"pinned": {"cloud": {"user": "root", "hostname": "example", "ssh_keys": [theirs]}}}
    Operation.objects.filter(pk=original.built_by_id).update(spec=json.dumps(spec))
    Image.objects.update(cloud_init=True)
    client.force_login(cast.operator)
    page = url("vms:clone", args=[original.pk])
    told = {"name": "twin", "lease": 3, "why": "a try", "token": uuid.uuid4()}
    assert client.get(page).context["form"]["own_keys"].value() == [mine.pk]
    assert client.post(page, told | {"own_keys": [mine.pk]}).status_code == 302
    asked = Operation.objects.get(kind=cloning.KIND)
    assert asked.frozen["pinned"]["cloud"] == {
        "user": "root", "hostname": "twin", "ssh_keys": [theirs, mine.line]
    }  # fmt: skip
    edit = f"{page}?edit={asked.pk}"
    form = client.get(edit).context["form"]
    assert form["own_keys"].value() == [mine.pk]
    client.post(edit, told | {"spec_hash": form["spec_hash"].value()})
    asked.refresh_from_db()
    assert asked.frozen["pinned"]["cloud"]["ssh_keys"] == [theirs]
    # Without cloud-init nobody would put them into the guest.
    Image.objects.update(cloud_init=False)
    assert "own_keys" not in client.get(page).context["form"].fields


def test_what_fails_leaves_no_rows(cast, original):
    asked = clone(cast.requester, original)
    finish(consent(cast, asked), State.FAILED)
    assert not VirtualMachine.objects.filter(name="twin").exists() and Port.objects.count() == 1
    assert set(used("disk").values()) == {(0, 2 * GIB)}


def test_the_original_stays_off_and_there_until_it_is_copied(cast, original):
    """Red when usable() does not look for clones that are made of a machine."""
    asked = clone(cast.requester, original)
    doing = {"actor": cast.requester, "machine": original}
    power.act(**doing, verb="start")
    move(claim(Operation.objects.get(kind="vm.start").pk, worker="worker"), State.SUCCEEDED, actor="worker")
    consent(cast, asked)
    with pytest.raises(Denied, match="is being cloned"):
        power.act(**doing, verb="start")
    with pytest.raises(Denied, match="is being cloned"):
        power.bin_machine(**doing, confirm_name=original.name)
    finish(asked)
    power.act(**doing, verb="start")


def test_one_whose_lease_ended_goes_into_the_bin_when_it_is_copied(cast, original):
    """Red when begin_by_itself() does not look for clones that are made of a machine."""
    cloned = clone(cast.requester, original)
    consent(cast, cloned)
    ago = timezone.now() - timedelta(days=1)
    VirtualMachine.objects.filter(pk=original.pk).update(lease_until=ago, lease_bin_at=ago)
    assert leases.put_into_bin() == 0
    finish(cloned)
    assert leases.put_into_bin() == 1 and Operation.objects.filter(kind="vm.bin").count() == 1


def test_one_in_the_bin_is_not_deleted_for_good_while_it_is_copied(client, cast, original):
    """Red when purge_machine(), purge_what_is_due() or the page does not look for clones."""
    cloned = clone(cast.requester, original)
    consent(cast, cloned)
    ago = timezone.now() - timedelta(days=1)
    VirtualMachine.objects.filter(pk=original.pk).update(status=Status.BINNED, bin_until=ago)
    purge = {"actor": cast.requester, "machine": original, "confirm_name": original.name}
    with pytest.raises(Denied, match="is being cloned"):
        power.purge_machine(**purge)
    assert power.purge_what_is_due() == 0
    client.force_login(cast.requester)
    assert "is being cloned" in client.get(url("vms:detail", args=[original.pk])).context["no_purge"]
    finish(cloned)
    assert power.purge_machine(**purge).state == State.QUEUED


def test_an_adopted_one_is_not_released_while_it_is_copied(client, cast, chief, original):
    """Red when why_not_released() does not look for clones: what is copied would be nobody's."""
    cloned = clone(cast.requester, original)
    consent(cast, cloned)
    VirtualMachine.objects.filter(pk=original.pk).update(adopted=True)
    release = {"actor": chief, "machine": original, "confirm_name": original.name}
    with pytest.raises(Denied, match="is being cloned"):
        release_machine(**release)
    client.force_login(chief)
    assert "is being cloned" in client.get(url("vms:detail", args=[original.pk])).context["no_release"]
    finish(cloned)
    release_machine(**release)
    assert not VirtualMachine.objects.filter(pk=original.pk).exists()


def test_what_was_asked_before_waits_for_the_clone_too(cast, original):
    """Red when claim() does not look for clones that are made of a machine."""
    asked = add(cast.requester, original)
    cloned = clone(cast.requester, original)
    consent(cast, cloned)
    with pytest.raises(Denied, match="is being cloned"):
        consent(cast, asked)
    finish(cloned)
    assert consent(cast, asked).state == State.QUEUED


def test_one_that_is_busy_runs_or_changed_is_not_cloned(cast, original):
    asked = clone(cast.requester, original)
    power.act(actor=cast.requester, machine=original, verb="start")
    with pytest.raises(Denied, match="Another change to this machine"):
        consent(cast, asked)
    finish(Operation.objects.get(kind="vm.start"))
    VirtualMachine.objects.update(observed_state="running")
    with pytest.raises(Denied, match="Switch it off first"):
        consent(cast, asked)
    with pytest.raises(Denied, match="Switch it off first"):
        clone(cast.requester, original, name="another")
    off(original)
    original.disks.update(capacity=3 * GIB)
    [sight] = kind_of("vm.clone").asking.outlooks([asked]).values()
    assert "another size by now" in sight.warnings[0] and sight.place == original.host.name
    with pytest.raises(Denied, match="another size by now"):
        consent(cast, asked)
    assert not VirtualMachine.objects.filter(name="twin").exists()


def test_none_is_made_on_a_host_in_maintenance(cast, original):
    """Red when obstacle() does not look at the host."""
    asked = clone(cast.requester, original)
    Host.objects.update(maintenance=True)
    [sight] = kind_of("vm.clone").asking.outlooks([asked]).values()
    assert "in maintenance" in sight.warnings[0]
    with pytest.raises(Denied, match="Its host is in maintenance"):
        consent(cast, asked)
    Host.objects.update(maintenance=False)
    assert consent(cast, asked).state == State.QUEUED


def test_one_without_disks_is_cloned_too(cast, original):
    """Red when what a clone takes must name a disk."""
    original.disks.all().delete()
    found = noted.of(original)
    found.observed_persistent["devices"].pop("disks")
    found.save()
    asked = clone(cast.requester, original)
    assert used("memory")["project"] == (GIB, GIB) and used("disk")["project"] == (0, 2 * GIB)
    [sight] = kind_of("vm.clone").asking.outlooks([asked]).values()
    assert sight.warnings == []
    finish(consent(cast, asked))
    assert not VirtualMachine.objects.get(name="twin").disks.exists()


def test_the_page_of_one_without_disks_of_the_portals_says_what_is_copied(client, cast, original):
    """Red when the page takes a machine's size to name a disk, or does not ask `why_not_copied`."""
    original.disks.all().delete()
    client.force_login(cast.requester)
    address = url("vms:clone", args=[original.pk])
    defined(original)
    text = client.get(address).content.decode()
    assert "Its disk vda lies in no pool of the portal" in text
    assert '<button class="btn btn-primary" disabled' in text
    found = noted.of(original)
    found.observed_persistent["devices"].pop("disks")
    found.save()
    text = client.get(address).content.decode()
    assert "It has no disk of its own to copy" in text and "disabled" not in text.partition("<main")[2]


OTHERS = [{"file": "/x"}, {"dev": "/dev/sda"}, {"pool": "p", "volume": "v"}]


@pytest.mark.parametrize("source", OTHERS, ids=str)
def test_a_disk_that_is_not_the_portals_is_not_copied(cast, original, source):
    defined(original, {"device": "disk", "target": {"dev": "vdz"}, "source": source})
    with pytest.raises(Denied, match="Its disk vdz lies in no pool"):
        clone(cast.requester, original)
    defined(original, {"device": "cdrom", "readonly": True, "target": {"dev": "sdb"}, "source": source})
    assert clone(cast.requester, original)


@pytest.mark.parametrize(
    ("devices", "sentence"),
    [
        ({"host_devices": [{"mode": "subsystem", "type": "usb"}]}, "a device of its host"),
        ({"memories": [{"model": "dimm"}, {"model": "nvdimm", "path": "/memory/a"}]}, "NVDIMM"),
        ({"interfaces": [{"mac": MAC, "type": "hostdev"}]}, "a network card of its host"),
        ({"interfaces": [{"type": "direct", "source": {"mode": "passthrough"}}]}, "a network card of its"),
        ({"tpms": [{"backend": "emulator"}, {"backend": "passthrough"}]}, "the TPM of its host"),
    ],
    ids=["device", "memory", "virtual function", "passed through", "TPM"],
)
def test_what_is_the_hosts_is_not_shared(cast, original, devices, sentence):
    """Red when request_clone or place() asks check_copied alone, or check_twin leaves one of them out."""
    asked = clone(cast.requester, original)
    defined(original, **devices)
    with pytest.raises(Denied, match=sentence):
        clone(cast.requester, original, name="another")
    with pytest.raises(Denied, match=sentence):
        consent(cast, asked)
    defined(original, memories=[{"model": "dimm"}], tpms=[{"backend": "emulator"}])
    assert consent(cast, asked).state == State.QUEUED


@pytest.mark.parametrize("readonly", [{}, {"loader_readonly": False}], ids=str)
def test_firmware_that_its_guest_writes_is_not_shared(cast, original, readonly):
    """Red when check_twin does not look at the loader, or takes one that says nothing for read-only."""
    devices = {"disks": [{"source": {"file": "/example/example-vda.qcow2"}}]}
    pflash = {"loader": "/a.fd", "loader_type": "pflash"}
    see(original, {"devices": devices, "os": {**pflash, **readonly}}, running=False)
    with pytest.raises(Denied, match="Its firmware is a file that its guest writes"):
        clone(cast.requester, original)
    see(original, {"devices": devices, "os": {**pflash, "loader_readonly": True}}, running=False)
    assert clone(cast.requester, original)


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"name": "Not/So"}, "name"),
        ({"name": "example"}, "name"),
        ({"lease_days": 0}, "lease"),
        ({"lease_days": 366}, "lease"),
        ({"why": " "}, "why"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_at_its_field(cast, original, values, field):
    with pytest.raises(Denied) as denied:
        clone(cast.requester, original, **values)
    assert denied.value.field == field


def test_a_name_that_waits_is_taken_and_the_first_click_counts(cast, original):
    token = uuid.uuid4()
    first = clone(cast.requester, original, token=token)
    assert clone(cast.requester, original, token=token) == first
    with pytest.raises(Denied, match="is taken"):
        clone(cast.requester, original)


def test_an_approver_may_shorten_it_and_not_make_it_smaller(cast, original):
    asked = clone(cast.requester, original)
    doing = {"actor": cast.approver, "operation": asked, "spec_hash": asked.spec_hash}
    with pytest.raises(Denied, match="size of its original"):
        revisions.lower(**doing, sizes={"disk": GIB})
    lowered = revisions.lower(**doing, sizes={"lease": 86400})
    consent(cast, lowered)
    twin = VirtualMachine.objects.get(name="twin")
    assert (twin.lease_until - twin.created_at).days == 0


def test_names_of_any_length_make_a_title(cast, original):
    """Red on PostgreSQL when the column is shorter than what is said with two names."""
    VirtualMachine.objects.update(name="a" * 63)
    original.refresh_from_db()
    asked = clone(cast.requester, original, name="b" * 63)
    assert asked.title.endswith(f" as {'b' * 63}")
    with pytest.raises(Denied, match="taken"):
        clone(cast.requester, original, name="b" * 63)


def test_many_requests_for_clones_are_weighed_by_few_queries(cast, original):
    """Red when each reads the disks of its original anew."""
    counts = []
    for number in range(3):
        clone(cast.requester, original, name=f"twin{number}")
        waiting = list(Operation.objects.filter(kind="vm.clone").select_related("requester", "project"))
        with CaptureQueriesContext(connection) as seen:
            kind_of("vm.clone").asking.outlooks(waiting)
        counts.append(len(seen))
    assert counts[0] == counts[1] == counts[2]


def test_a_full_pool_refuses_the_approval(cast, original):
    asked = clone(cast.requester, original)
    Counter.objects.filter(resource="disk", scope__startswith="pool:").update(limit=3 * GIB)
    with pytest.raises(Denied, match="not enough disk"):
        consent(cast, asked)
    assert not VirtualMachine.objects.filter(name="twin").exists()


def test_the_page_asks_and_edits(client, cast, original):
    client.force_login(cast.requester)
    address = url("vms:clone", args=[original.pk])
    page = client.get(address)
    assert "All disks in full, 2 GiB" in page.content.decode()
    answer = client.post(address, {**page.context["form"].initial, "name": "twin", "why": "<i>"})
    asked = Operation.objects.get(kind="vm.clone")
    assert answer.url == url("operations:detail", args=[asked.pk])
    told = {fact.label: fact.value for fact in words.facts(asked.frozen)}
    assert told["Clone of"] == "example" and told["Name"] == "twin" and told["Disk"] == "2 GiB"
    edit = f"{address}?edit={asked.pk}"
    client.post(edit, {**client.get(edit).context["form"].initial, "name": "other"})
    asked.refresh_from_db()
    assert (asked.title, asked.revision) == ("Clone example as other", 2)
    VirtualMachine.objects.update(observed_state="running")
    text = client.get(address).content.decode()
    assert 'disabled title="Switch it off first' in text
