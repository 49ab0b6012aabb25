"""Further pools of hosts: added where the host can, removed unless used, and never what lies in them."""

import subprocess
import uuid
from contextlib import suppress

import pytest
from django.urls import reverse

from portal.core.errors import Denied
from portal.drivers.errors import CallTimeout, HostUnreachable
from portal.drivers.types import DiskSpec, DomainSpec, PoolKind, PoolSpec, VolumeInfo, VolumeSpec
from portal.hosts import enrolment, steps
from portal.hosts.models import PoolAttachment, StoragePool
from portal.hosts.storage import pool_kinds, pools
from portal.operations.models import Counter
from portal.operations.registry import StepContext, StepFailed
from portal.operations.states import State
from tests.factories import MIB, make_host, make_image, make_machine
from tests.hosts.test_storage import Died, code, done, fake, look, make, pool  # noqa: F401 (fixtures)

pytestmark = [pytest.mark.django_db, pytest.mark.database]
SPARE = {"name": "spare", "kind": "dir", "path": "/srv/spare", "source": "", "server": ""}


def add(chief, host, **changes):
    return pools.add(actor=chief, host=host, **{**SPARE, **changes})


def spare(name="spare"):
    return PoolAttachment.objects.select_related("pool", "host").get(pool__name=name)


def there(fake):  # noqa: F811
    return {info.name: info for info in fake.list_pools()}


def context_of(operation):
    return StepContext(operation.frozen, operation.identifiers, lambda: None)


def test_a_pool_is_added_used_and_removed_with_all_that_lies_in_it(fake, pool, chief):  # noqa: F811
    """Red when the pool is not counted, or removing it deletes a volume."""
    fake.kinds = tuple(PoolKind)
    assert done(add(chief, pool.host)).state == State.SUCCEEDED
    served = {"name": "served", "kind": "netfs", "path": "/srv/served", "source": "/disks"}
    assert done(add(chief, pool.host, **served, server="nas.example.org")).state == State.SUCCEEDED
    assert there(fake)["served"].kind == "netfs"
    place = spare()
    assert place.observed_capacity and Counter.objects.get(scope=place.pool.scope).limit
    assert done(make(chief, place)).state == State.SUCCEEDED
    gone = pools.remove(actor=chief, pool=place, confirm_name="spare")
    assert done(gone).state == State.SUCCEEDED
    assert "spare" not in there(fake) and not StoragePool.objects.filter(name="spare").exists()
    assert not Counter.objects.filter(scope=place.pool.scope).exists()
    assert ("spare", "data.qcow2") in fake._volumes


def test_the_host_says_who_uses_what_others_named(fake, pool, chief):  # noqa: F811
    """Red when Empty does not ask the host, or asks by names that the portal would give."""
    done(add(chief, pool.host))
    for name in ("lost+found", "my disk.img"):
        fake._volumes["spare", name] = VolumeInfo("spare", name, f"/srv/spare/{name}", 0, 0)
    fake.define(DomainSpec("hidden", str(uuid.uuid4()), 1, 64 * MIB, (DiskSpec("/srv/spare/my disk.img"),)))
    failed = done(pools.remove(actor=chief, pool=spare(), confirm_name="spare"))
    assert (failed.state, code(failed)) == (State.FAILED, "pool_in_use") and "spare" in there(fake)
    fake.undefine(fake.list_domains()[0].uuid)
    gone = pools.remove(actor=chief, pool=spare(), confirm_name="spare")
    assert done(gone).state == State.SUCCEEDED and "spare" not in there(fake)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": "a b"}, "name"),
        ({"name": "<x/>"}, "name"),
        ({"name": "example-pool"}, "name"),
        ({"path": "/etc/libvirt"}, "path"),
        ({"path": "/var/lib"}, "path"),
        ({"path": "/srv"}, "path"),
        ({"path": "/srv/../etc"}, "path"),
        ({"path": "/srv/a\n<b/>"}, "path"),
        ({"path": "/srv/example"}, "path"),
        ({"path": "/srv/example/in/it"}, "path"),
        ({"kind": "logical", "source": "vg"}, "path"),
        ({"kind": "nonsense"}, "kind"),
        ({"source": "/dev/vdb1"}, "source"),
        ({"server": "nas"}, "server"),
        ({"kind": "fs", "source": "/etc/shadow"}, "source"),
        ({"kind": "fs", "source": "/dev/../etc/shadow"}, "source"),
        ({"kind": "fs", "source": ""}, "source"),
        ({"kind": "netfs", "source": "/disks", "server": "-oProxy"}, "server"),
        ({"kind": "netfs", "source": "/disks", "server": "a'><b"}, "server"),
        ({"kind": "netfs", "source": "disks", "server": "nas"}, "source"),
    ],
)
def test_hostile_values_reach_no_host(fake, pool, chief, changes, field):  # noqa: F811
    PoolAttachment.objects.update(path="/srv/example")
    with pytest.raises(Denied) as denied:
        add(chief, pool.host, **changes)
    assert denied.value.field == field


def test_only_admins_add_and_remove(fake, pool, cast, chief):  # noqa: F811
    done(add(chief, pool.host))
    with pytest.raises(Denied, match="may not add pools"):
        add(cast.requester, pool.host, name="other", path="/srv/other")
    with pytest.raises(Denied, match="may not remove pools"):
        pools.remove(actor=cast.requester, pool=spare(), confirm_name="spare")


def test_a_kind_that_the_host_lacks_is_told_and_nothing_is_left(fake, pool, chief):  # noqa: F811
    """Red when Define does not ask the host."""
    fake.kinds = (PoolKind.DIR,)
    failed = done(add(chief, pool.host, kind="fs", source="/dev/vdb1"))
    assert (failed.state, code(failed)) == (State.FAILED, "not_supported")
    assert set(there(fake)) == {"example-pool"} and not StoragePool.objects.filter(name="spare").exists()


def test_a_pool_of_somebody_else_is_never_taken_nor_removed(fake, pool, chief):  # noqa: F811
    """Red when the undo removes by name alone, or a folder of another pool is taken."""
    theirs = PoolSpec("spare", str(uuid.uuid4()), "/srv/theirs")
    fake.ensure_pool(theirs)
    failed = done(add(chief, pool.host))
    assert (failed.state, code(failed)) == (State.FAILED, "name_taken")
    failed = done(add(chief, pool.host, name="second", path="/srv/theirs"))
    assert (failed.state, code(failed)) == (State.FAILED, "folder_taken")
    assert there(fake)["spare"].uuid == theirs.uuid and set(there(fake)) == {"example-pool", "spare"}


def test_a_folder_that_is_one_of_a_pool_by_a_link_is_taken_too(fake, pool, chief):  # noqa: F811
    """Red when Define compares paths as they are written: two pools would have each other's volumes."""
    fake.ensure_pool(PoolSpec("theirs", str(uuid.uuid4()), "/srv/theirs"))
    fake.links["/srv/linked"] = "/srv/theirs"
    failed = done(add(chief, pool.host, path="/srv/linked"))
    assert (failed.state, code(failed)) == (State.FAILED, "folder_taken")
    assert set(there(fake)) == {"example-pool", "theirs"}
    assert done(add(chief, pool.host, path="/srv/free")).state == State.SUCCEEDED


def image_of(tmp_path, name):
    """Return an image whose file is there."""
    path = tmp_path / f"{name}.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "16M"], check=True)
    return make_image(name=name, title=name, source=str(path))


def has(place):
    return set(place.images.values_list("image__name", flat=True))


def test_an_added_pool_gets_the_images_that_are_there(fake, pool, chief, tmp_path):  # noqa: F811
    """Red when images stay in the pools that were there: no machine would be placed in the new one."""
    image_of(tmp_path, "one")
    # The file of the image that the first pool has is gone: that keeps nobody.
    added = done(add(chief, pool.host))
    assert added.state == State.SUCCEEDED and has(spare()) == {"one"}
    assert added.steps.get(name="images").remark == "image_not_everywhere"
    assert spare().images.get().path == "/srv/spare/" + spare().images.get().image.volume_name


def test_a_pool_gets_its_images_though_libvirtd_dies(fake, pool, chief, tmp_path, monkeypatch):  # noqa: F811
    """Red when FillFurtherPools does without `once_reached`: half a volume would lie there, without a row."""
    image_of(tmp_path, "one")
    monkeypatch.setattr(steps, "PAUSE", 0)
    copy, calls = fake.upload_image, []

    def dying(*told):
        calls.append(told)
        if len(calls) == 1:
            raise HostUnreachable("end of file while reading data")
        return copy(*told)

    monkeypatch.setattr(fake, "upload_image", dying)
    added = done(add(chief, pool.host))
    assert added.state == State.SUCCEEDED and has(spare()) == {"one"} and len(calls) >= 2


def test_a_proof_copies_what_each_pool_that_runs_lacks(fake, pool, chief, tmp_path, monkeypatch):  # noqa: F811
    """Red when a proof copies to the first pool alone, or a pool that does not run or fails ends it."""
    for name in ("broken", "spare", "stopped"):
        assert done(add(chief, pool.host, name=name, path=f"/srv/{name}")).state == State.SUCCEEDED
    done(pools.stop(actor=chief, pool=spare("stopped")))
    image_of(tmp_path, "one")
    copy = fake.upload_image

    def slow(where, *told):
        if where == "broken":
            raise CallTimeout("the server does not answer")
        return copy(where, *told)

    monkeypatch.setattr(fake, "upload_image", slow)
    further = enrolment.ENROL.steps[-1]
    context = StepContext({}, {"host": pool.host_id}, lambda: None)
    assert further.do(context) == "image_not_everywhere"
    assert (has(spare()), has(spare("broken")), has(spare("stopped"))) == ({"one"}, set(), set())
    done(pools.start(actor=chief, pool=spare("stopped")))
    further.do(context)
    assert has(spare("stopped")) == {"one"} and "one" not in has(pool)


def test_a_pool_that_goes_while_it_is_filled_is_told(fake, pool, chief, tmp_path, monkeypatch):  # noqa: F811
    """Red when the row of a copy is written for a pool that is not there any more."""
    done(add(chief, pool.host))
    image_of(tmp_path, "one")
    copy = fake.upload_image

    def going(*told):
        PoolAttachment.objects.filter(pool__name="spare").delete()
        return copy(*told)

    monkeypatch.setattr(fake, "upload_image", going)
    context = StepContext({}, {"host": pool.host_id}, lambda: None)
    assert enrolment.ENROL.steps[-1].do(context) == "image_not_everywhere"


def test_what_a_worker_had_defined_and_no_more_starts_with_its_host(fake, pool, chief):  # noqa: F811
    """Red when Define leaves that to the driver, which takes such a pool for one that was there."""
    begun = add(chief, pool.host)
    fake.ensure_pool(PoolSpec("spare", begun.identifiers["uuid"], "/srv/spare"))
    fake.autostart_pool("spare", False)
    assert done(begun).state == State.SUCCEEDED and there(fake)["spare"].autostart


def test_a_used_pool_stays_and_says_by_whom(fake, pool, chief, cast, client):  # noqa: F811
    """Red when a machine's disk, or the pool that a host was added with, does not keep it."""
    done(add(chief, pool.host))
    place = spare()
    with pytest.raises(Denied, match="added with this pool"):
        pools.remove(actor=chief, pool=pool, confirm_name=pool.pool.name)
    with pytest.raises(Denied, match="exactly"):
        pools.remove(actor=chief, pool=place, confirm_name="other")
    machine = make_machine(cast, "web", pool.host)
    machine.disks.create(pool=place, volume_name="web.qcow2", capacity=MIB)
    fake.create_volume(VolumeSpec("spare", "web.qcow2", MIB))
    look(chief, place)
    with pytest.raises(Denied, match="Machine web"):
        pools.remove(actor=chief, pool=place, confirm_name="spare")
    client.force_login(chief)
    assert "Machine web" in client.get(reverse("hosts:pool", args=[place.pk])).content.decode()


def test_what_comes_into_it_meanwhile_keeps_it(fake, pool, chief, cast):  # noqa: F811
    """Red when Forget forgets what a machine has, or its failure leaves the pool half gone."""
    done(add(chief, pool.host))
    begun = pools.remove(actor=chief, pool=spare(), confirm_name="spare")
    machine = make_machine(cast, "web", pool.host)
    machine.disks.create(pool=spare(), volume_name="web.qcow2", capacity=MIB)
    failed = done(begun)
    assert (failed.state, code(failed)) == (State.FAILED, "pool_in_use")
    assert "spare" in there(fake) and spare().path == "/srv/spare"


@pytest.mark.parametrize("kind", pool_kinds.KINDS)
def test_a_worker_may_die_after_each_call(fake, pool, chief, kind, monkeypatch):  # noqa: F811
    """Red when a step cannot be done twice, or the undo leaves something of a pool that was being added."""
    if kind.name == pool_kinds.REMOVE:
        done(add(chief, pool.host))
        begun = pools.remove(actor=chief, pool=spare(), confirm_name="spare")
    else:
        begun = add(chief, pool.host)
    deaths = set()

    def dying(verb):
        act = getattr(fake, verb)

        def acted(*args):
            found = act(*args)
            if verb not in deaths:
                deaths.add(verb)
                raise Died
            return found

        return acted

    with monkeypatch.context() as patched:
        for verb in ("ensure_pool", "remove_pool", "list_pools"):
            patched.setattr(fake, verb, dying(verb))
        for step in kind.steps:
            while True:
                with suppress(Died):
                    step.do(context_of(begun))
                    step.do(context_of(begun))
                    break
    added = kind.name == pool_kinds.ADD
    assert len(deaths) == 2
    assert ("spare" in there(fake)) == added == StoragePool.objects.filter(name="spare").exists()
    for step in reversed(kind.steps):
        step.undo(context_of(begun))
        step.undo(context_of(begun))
    assert StoragePool.objects.filter(name="spare").exists() != added
    assert "spare" not in there(fake)


NFS = {"name": "nfs", "kind": "netfs", "path": "/srv/nfs", "source": "/disks/a", "server": "nas.example.org"}


def test_a_folder_of_a_server_is_one_hosts_alone(fake, pool, chief):  # noqa: F811
    """Red when the first host's disks are shown to a second one, which would take them for nobody's."""
    fake.kinds = tuple(PoolKind)
    second = make_host("second-host", "fake://second/")
    queued = add(chief, pool.host, **NFS)
    same = {**NFS, "name": "other", "path": "/srv/other"}
    for _turn in ("queued", "there"):
        for changes in ({}, {"server": "NAS.example.org"}, {"source": "/disks"}, {"source": "/disks/a/b"}):
            with pytest.raises(Denied, match="The pool nfs of example-host lies there") as denied:
                add(chief, second, **{**same, **changes})
            assert denied.value.field == "source"
        with pytest.raises(Denied, match="The pool nfs of example-host lies there"):
            add(chief, pool.host, **same)
        if _turn == "queued":
            assert done(queued).state == State.SUCCEEDED
    add(chief, second, **{**same, "source": "/disks/ab"})
    elsewhere = {"name": "third", "path": "/srv/third", "server": "other.example.org"}
    add(chief, second, **{**same, **elsewhere})


def test_a_folder_is_free_again_once_its_pool_is_gone(fake, pool, chief):  # noqa: F811
    """Red when a pool that is on its way out does not count: it comes back when that fails."""
    fake.kinds = tuple(PoolKind)
    second = make_host("second-host", "fake://second/")
    done(add(chief, pool.host, **NFS))
    going = pools.remove(actor=chief, pool=spare("nfs"), confirm_name="nfs")
    pool_kinds.Forget().do(context_of(going))
    with pytest.raises(Denied, match="lies there"):
        add(chief, second, **NFS)
    assert done(going).state == State.SUCCEEDED
    add(chief, second, **NFS)


def test_a_device_carries_one_pool_of_a_host(fake, pool, chief):  # noqa: F811
    """Red when a device is mounted twice, or one of another host of the same name is taken for it."""
    disk = {"kind": "fs", "source": "/dev/vdb1"}
    add(chief, pool.host, **disk)
    with pytest.raises(Denied, match="lies there"):
        add(chief, pool.host, **disk, name="other", path="/srv/other")
    add(chief, make_host("second-host", "fake://second/"), **disk)


def test_the_page_offers_what_the_host_has(fake, pool, chief, client):  # noqa: F811
    """Red when the page offers kinds that the host did not name when it was proven."""
    client.force_login(chief)
    url = reverse("hosts:pool-add", args=[pool.host_id])
    page = client.get(url).content.decode()
    assert 'value="dir"' in page and 'value="fs"' not in page
    enrolment.Reach().do(StepContext({}, {"host": pool.host_id}, lambda: None))
    page = client.get(url).content.decode()
    assert 'value="fs"' in page and 'value="netfs"' not in page and 'value="logical"' not in page
    wrong = client.post(url, {**SPARE, "path": "/etc/x"})
    assert wrong.status_code == 422 and b"a folder of the system" in wrong.content
    assert client.post(url, {**SPARE, "kind": "netfs"}).status_code == 422
    assert client.post(url, SPARE).status_code == 302


def test_a_pool_of_another_uuid_is_no_pool_of_ours(fake, pool, chief):  # noqa: F811
    done(add(chief, pool.host))
    begun = pools.remove(actor=chief, pool=spare(), confirm_name="spare")
    fake.remove_pool("spare")
    theirs = PoolSpec("spare", str(uuid.uuid4()), "/srv/theirs")
    fake.ensure_pool(theirs)
    with pytest.raises(StepFailed):
        pool_kinds.Empty().do(context_of(begun))
    pool_kinds.Drop().do(context_of(begun))
    assert there(fake)["spare"].uuid == theirs.uuid
