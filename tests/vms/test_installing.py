"""Machines that begin empty with an installer: asked for, made on a host, and what their next start is."""

import re
import uuid

import pytest
from django.core.management import CommandError, call_command
from django.urls import reverse
from django.utils import timezone

from portal.accounts import public_keys
from portal.audit.models import AuditEntry
from portal.core import osinfo
from portal.core.errors import Denied
from portal.drivers.errors import HostUnreachable
from portal.drivers.fake import FakeDriver
from portal.drivers.libvirt.xml.domain import DomainElement
from portal.drivers.types import PoolSpec
from portal.hosts import installers
from portal.hosts.images import describing
from portal.hosts.images.values import Description
from portal.hosts.models import Image
from portal.operations import runner, words
from portal.operations import services as operations
from portal.operations.models import Counter, Operation
from portal.operations.policies.rules import Rule
from portal.operations.registry import kind_of
from portal.operations.services import claim
from portal.operations.states import State
from tests import factories
from tests.factories import GIB, HOST_KEY, MIB
from vms import checks, noted, power, prefill
from vms.models import InstallTemplate, Observed, Status, VirtualMachine
from vms.services import INSTALL, request_machine
from vms.unattended_examples import EXAMPLES

pytestmark = [pytest.mark.database, pytest.mark.django_db]
FOLDER = "/srv/example"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIO3pRSmoEbnApkTfXeqmr+G9jgvKZmVNfC69Nf1c60Rk ada's; $(desk)"
INITRD = b"installer" * 7


@pytest.fixture
def driver(monkeypatch):
    """A host's driver, which the steps call."""
    made = FakeDriver()
    made.ensure_pool(PoolSpec("example-pool", str(uuid.uuid4()), FOLDER))
    monkeypatch.setattr("portal.hosts.steps.call", lambda _h, verb, *a, timeout: getattr(made, verb)(*a))
    return made


@pytest.fixture
def folder(tmp_path):
    """A folder with an installer."""
    (tmp_path / "linux").write_bytes(b"kernel")
    (tmp_path / "initrd.gz").write_bytes(INITRD)
    return tmp_path


def offer(image):
    place = factories.make_place(factories.make_host(), path=FOLDER, image=image)
    Counter.objects.create(scope=place.host.scope, resource="memory", limit=GIB)
    return factories.make_catalogue(image, factories.make_network())


@pytest.fixture
def netboot(chief, folder):
    """An item of an installer that starts from a network, whose image lies on a host."""
    told = {"name": "debian", "title": "Debian installer", "version": "12"}
    image = installers.add_installer(actor=chief, source=str(folder), **told)
    Image.objects.update(min_memory=64 * MIB, virtual_size=128 * MIB)
    image.refresh_from_db()
    return offer(image)


@pytest.fixture
def iso(db):
    """An item of an installer on a CD, whose image lies on a host."""
    return offer(factories.make_image(kind=Image.Kind.ISO, name="cd", title="A CD", cloud_init=False))


def template(form):
    """Return the template that a new portal begins with; other tests may have emptied its table."""
    [(name, text)] = [(name, text) for name, of, text in EXAMPLES if of == form]
    return InstallTemplate.objects.get_or_create(name=name, defaults={"format": form, "text": text})[0]


def ask(cast, catalogue, **wish):
    made = factories.make_wish(catalogue, user="ada", **wish)
    return request_machine(actor=cast.requester, project=cast.project, wish=made, token=uuid.uuid4())


def build(cast, asked):
    """Approve a request and carry it out."""
    operations.decide(actor=cast.approver, operation=asked, spec_hash=asked.spec_hash, approved=True)
    runner.carry_on(claim(asked.pk, worker="worker"), worker="worker")
    asked.refresh_from_db()
    return asked


def definitions(driver, operation):
    found = driver.definition(operation.identifiers["uuid"])
    return DomainElement.from_xml(found.persistent), DomainElement.from_xml(found.running)


def names(driver):
    return sorted(volume.name for volume in driver.list_volumes("example-pool"))


# From the network


def test_an_installer_of_the_network_runs_and_the_next_start_is_from_the_disk(cast, driver, netboot):
    """Red when StartFromDisk does nothing: each start would install again; or it touches what runs."""
    done = build(cast, ask(cast, netboot))
    assert (done.kind, done.state) == (INSTALL, State.SUCCEEDED)
    later, now = definitions(driver, done)
    place = netboot.item.image.attachments.get()
    assert (now.boot.kernel, now.boot.initrd) == (place.path, done.identifiers["initrd_path"])
    assert "console=ttyS0" in now.boot.cmdline and "priority=critical" not in now.boot.cmdline
    assert now.installs and now.seed_path is None
    assert later.boot is None and not later.installs
    machine = VirtualMachine.objects.get(built_by=done)
    assert machine.status == Status.ACTIVE and machine.disks.get().capacity == 256 * MIB
    # The installer's own part is in the guest's memory; nothing secret or large stays behind.
    assert names(driver) == [done.identifiers["volume"]]


def look(driver, machine):
    """Let the portal see what a machine is and is defined as."""
    name = str(machine.uuid)
    noted.note(machine.host_id, name, driver.definition(name), timezone.now())
    VirtualMachine.objects.update(observed_state=driver.domain_info(name).state.value)
    machine.refresh_from_db()


def test_what_its_installer_runs_from_is_not_kept_so_it_is_not_suspended(cast, driver, netboot):
    """Red when StartFromDisk does not note what it made, or what runs is not looked at."""
    machine = VirtualMachine.objects.get(built_by=build(cast, ask(cast, netboot)))
    VirtualMachine.objects.update(observed_state=Observed.RUNNING)
    for _turn in ("before the watcher looks", "and after"):
        with pytest.raises(Denied, match="It runs from files of its installer"):
            power.act(actor=cast.requester, machine=machine, verb="save")
        look(driver, machine)
    for verb in (driver.destroy, driver.start):
        verb(str(machine.uuid))
    look(driver, machine)
    assert power.act(actor=cast.requester, machine=machine, verb="save").kind == "vm.save"


def test_a_machine_whose_installer_is_a_cd_can_be_suspended(cast, driver, iso):
    """Red when any installer forbids it: a CD lies where it lay."""
    machine = VirtualMachine.objects.get(built_by=build(cast, ask(cast, iso)))
    look(driver, machine)
    assert power.act(actor=cast.requester, machine=machine, verb="save").kind == "vm.save"


def test_what_others_start_from_a_kernel_of_their_host_can_be_suspended(cast, driver, netboot):
    """Red when every kernel that is named forbids it."""
    machine = VirtualMachine.objects.get(built_by=build(cast, ask(cast, netboot)))
    look(driver, machine)
    VirtualMachine.objects.update(adopted=True)
    machine.refresh_from_db()
    assert power.why_not(cast.requester, machine, "save") == ""


def test_answers_stand_behind_the_initrd_and_hold_the_keys_alone(cast, driver, netboot, monkeypatch):
    """Red when the template is not filled in, the comment of a key comes along, or nothing is appended."""
    written = []
    real = driver.write_boot_file
    monkeypatch.setattr(driver, "write_boot_file", lambda spec: written.append(spec) or real(spec))
    done = build(cast, ask(cast, netboot, template=template("preseed"), ssh_keys=KEY))
    [spec] = written
    assert spec.source.endswith("initrd.gz") and (len(INITRD) + spec.appended.index(b"070701")) % 4 == 0
    assert b"d-i netcfg/hostname string example-vm" in spec.appended and b"/dev/vda" in spec.appended
    assert KEY.rpartition(" ada")[0].encode() + b"\n" in spec.appended and b"desk" not in spec.appended
    assert "priority=critical" in definitions(driver, done)[1].boot.cmdline


def test_an_installer_that_was_changed_since_is_not_started(cast, driver, netboot, folder):
    """Red when the digest is not asked for: what was approved is another installer than what runs."""
    asked = ask(cast, netboot)
    (folder / "initrd.gz").write_bytes(b"other")
    done = build(cast, asked)
    assert done.state == State.FAILED
    assert done.steps.get(name="answers").error_code == "installer_changed"
    assert names(driver) == [] and not VirtualMachine.objects.exists()


@pytest.mark.parametrize("failing", ["start", "redefine"])
def test_what_fails_leaves_nothing(cast, driver, netboot, monkeypatch, failing):
    """Red when WriteAnswers.undo does nothing."""

    def fail(*_arguments):
        raise HostUnreachable("no", retryable=False)

    monkeypatch.setattr(driver, failing, fail)
    done = build(cast, ask(cast, netboot))
    assert done.state == State.FAILED
    assert names(driver) == [] and driver.list_domains() == ()


# From a CD


def test_a_cd_comes_before_the_disk_once_and_a_restart_ends_it(cast, driver, iso):
    """Red when the definition keeps the CD first: whoever starts the machine again installs again."""
    done = build(cast, ask(cast, iso))
    assert done.state == State.SUCCEEDED
    later, now = definitions(driver, done)
    path = iso.item.image.attachments.get().path
    assert (now.cds, now.installs, now.seed_path) == ((path,), True, None)
    text = driver.definition(done.identifiers["uuid"])
    orders = [re.findall(r'<boot dev="(\w+)"', one) for one in (text.running, text.persistent)]
    # A disk that nothing was installed on leads to the CD again.
    assert orders == [["cdrom", "hd"], ["hd", "cdrom"]]
    assert later.cds == (path,) and not later.installs


@pytest.mark.parametrize(("form", "label"), [("kickstart", b"OEMDRV"), ("autoinstall", b"cidata")])
def test_answers_for_a_cd_lie_on_another_cd_by_the_label_that_is_looked_for(cast, driver, iso, form, label):
    done = build(cast, ask(cast, iso, template=template(form), ssh_keys=KEY))
    content = driver.seeds[done.identifiers["seed_path"]]
    assert label in content and b"example-vm" in content
    assert definitions(driver, done)[1].seed_path == done.identifiers["seed_path"]


# Asking


def test_a_template_is_frozen_filled_in_and_shown_to_who_decides(cast, netboot):
    """Red when the request names the template alone: an edit of it would change what was approved."""
    asked = ask(cast, netboot, template=template("preseed"), ssh_keys=KEY)
    InstallTemplate.objects.update(text="changed")
    told = {fact.label: fact.value for fact in words.facts(asked.frozen)}
    assert told["Installation"] == "Debian"
    assert "netcfg/hostname string example-vm" in told["What the installer is told"]


@pytest.mark.parametrize(("item", "form"), [("netboot", "kickstart"), ("iso", "preseed")])
def test_what_an_installer_does_not_read_is_refused(request, cast, item, form):
    with pytest.raises(Denied, match="does not read") as denied:
        ask(cast, request.getfixturevalue(item), template=template(form), ssh_keys=KEY)
    assert denied.value.field == "template"


def test_a_template_without_a_key_is_refused(cast, netboot):
    """Red when it is not asked for: nobody could sign in to what was installed."""
    with pytest.raises(Denied, match="at least one SSH key"):
        ask(cast, netboot, template=template("preseed"))


@pytest.mark.parametrize("user", ["admin", "root", "_apt", "sudo"])
def test_a_user_that_debians_installer_would_ask_about_is_refused(netboot, user):
    """Red when a reserved name is let through: the installer stops at a question that nobody sees."""
    values = {"user": user, "template": template("preseed"), "ssh_keys": KEY}
    assert "choose another" in checks.refusals(netboot.item, values)["user"]
    assert checks.refusals(netboot.item, {"user": user}) == {}


def test_the_user_that_a_form_proposes_can_be_had(netboot):
    """Red when the installer's own user is one that Debian's installer refuses."""
    values = {"user": netboot.item.image.login_user, "template": template("preseed"), "ssh_keys": KEY}
    assert checks.refusals(netboot.item, values) == {}


def test_an_installer_that_needs_uefi_is_refused_with_the_reason(iso):
    Image.objects.update(os="win11")
    iso.item.image.refresh_from_db()
    assert osinfo.knowledge("win11").needs_uefi
    refusal = checks.refusals(iso.item, {})["item"]
    assert "UEFI" in refusal and "example-host: it has not told what it can give" in refusal


def test_the_form_asks_how_to_install_and_nothing_of_cloud_init(client, cast, netboot):
    """Red when a ticked key does not count as one."""
    template("preseed")
    client.force_login(cast.requester)
    key = public_keys.add(actor=cast.requester, name="", line=HOST_KEY)
    page = reverse("vms:ask", args=[netboot.item.pk])
    form = client.get(page).context["form"]
    assert "user_data" not in form.fields and "packages" not in form.fields
    assert [choice[1] for choice in form.fields["template"].choices][1:] == ["Debian"]
    values = {name: form[name].value() for name in ("token", "flavour", "network", "lease_days", "user")}
    values |= {"flavour": netboot.flavour.pk, "network": netboot.network.pk, "project": cast.project.pk}
    values |= {"name": "by-form", "why": "w", "ssh_keys": "", "template": template("preseed").pk}
    assert client.post(page, values).status_code == 422
    answer = client.post(page, values | {"own_keys": [key.pk]})
    assert answer.status_code == 302, answer.context["form"].errors
    asked = Operation.objects.get()
    assert asked.kind == INSTALL
    assert prefill.like(asked).values["template"] == template("preseed").pk
    for name in ("edit", "copy"):
        assert client.get(reverse(f"vms:{name}", args=[asked.pk])).status_code == 200


def test_whom_a_machine_lets_in_is_asked_for_a_template_alone(client, cast, iso):
    """Red when an installation by hand asks for a user: the CDs that admins add name none."""
    client.force_login(cast.requester)
    Image.objects.update(login_user="", min_memory=64 * MIB)
    page = reverse("vms:ask", args=[iso.item.pk])
    form = client.get(page).context["form"]
    values = {name: form[name].value() for name in ("token", "lease_days", "user")}
    values |= {"flavour": iso.flavour.pk, "network": iso.network.pk, "project": cast.project.pk}
    values |= {"name": "by-hand", "why": "w", "ssh_keys": KEY, "template": template("kickstart").pk}
    refused = client.post(page, values)
    assert refused.status_code == 422 and list(refused.context["form"].errors) == ["user"]
    answer = client.post(page, values | {"template": ""})
    assert answer.status_code == 302, answer.context["form"].errors
    asked = Operation.objects.get()
    assert asked.frozen["pinned"]["cloud"]["user"] == ""
    assert "Login user" not in [fact.label for fact in words.facts(asked.frozen)]


def test_an_item_of_an_image_that_is_a_disk_has_no_such_question(client, cast):
    catalogue = offer(factories.make_image())
    client.force_login(cast.requester)
    form = client.get(reverse("vms:ask", args=[catalogue.item.pk])).context["form"]
    assert "template" not in form.fields


def test_a_name_is_taken_by_a_request_of_either_kind(cast, netboot):
    ask(cast, netboot)
    with pytest.raises(Denied, match="is taken"):
        ask(cast, netboot)


def test_policies_can_choose_installations_and_their_items(netboot):
    assert netboot.item.name in kind_of(INSTALL).items()
    assert Rule(name="x", kinds=(INSTALL,)).kinds == (INSTALL,)


def test_the_machines_page_says_what_happens_at_the_next_start(client, cast, driver, iso):
    machine = VirtualMachine.objects.get(built_by=build(cast, ask(cast, iso)))
    client.force_login(cast.requester)
    page = client.get(reverse("vms:detail", args=[machine.pk])).content.decode()
    assert "started with A CD" in page and "it starts from its disk" in page and "until you eject it" in page


@pytest.mark.parametrize(("form", "asks"), [("autoinstall", True), ("kickstart", False), ("", False)])
def test_the_machines_page_says_that_ubuntus_installer_asks_once(client, cast, driver, iso, form, asks):
    """Red when nobody is told: the installer waits on a screen for what people think was answered."""
    wish = {"template": template(form), "ssh_keys": KEY} if form else {}
    machine = VirtualMachine.objects.get(built_by=build(cast, ask(cast, iso, **wish)))
    client.force_login(cast.requester)
    page = client.get(reverse("vms:detail", args=[machine.pk])).content.decode()
    assert ("Continue with autoinstall?" in page) == asks


# Adding installers


def test_an_installer_is_added_by_command_once(chief, folder, capsys):
    for _turn in range(2):
        call_command("add_installer", str(folder), username="chief")
    image = Image.objects.get()
    assert (image.kind, image.sha256) == (Image.Kind.NETBOOT, installers.digest(str(folder)))
    assert image.volume_name.endswith(".kernel") and image.sha256 in capsys.readouterr().out
    assert AuditEntry.objects.filter(verb="installer.added").count() == 1


def test_an_installer_that_is_added_again_keeps_what_was_said_of_it(chief, folder):
    """Red when the command's defaults count as typed, or what osinfo-db says as what a person said."""
    call_command("add_installer", str(folder), username="chief")
    image = Image.objects.get()
    said = {"title": "Ours", "version": "12-ours", "os": "debian12", "min_memory": 2 * GIB, "min_disk": GIB}
    values = Description(**said, login_user="root", device_models=("paravirtual", "emulated"))
    seen = describing.snapshot(image)
    describing.describe_image(actor=chief, image=image, values=values, seen=seen)
    call_command("add_installer", str(folder), username="chief")
    image.refresh_from_db()
    assert (image.title, image.version, image.min_memory) == ("Ours", "12-ours", 2 * GIB)
    # An installer's own length says nothing of the disk that it writes to.
    assert image.virtual_size > image.least_disk == GIB
    call_command("add_installer", str(folder), "--title=Typed", username="chief")
    image.refresh_from_db()
    assert (image.title, image.version) == ("Typed", "12-ours")


@pytest.mark.parametrize(
    "wrong",
    [{"name": "../x"}, {"name": "A b"}, {"title": "t" * 101}, {"version": "1 2"}, {"os": "Debian 12"}],
)
def test_an_installer_is_described_as_images_are(chief, folder, wrong):
    """Red when the values are not checked: the name is one of a volume on every host."""
    told = {"name": "n", "title": "t", "version": "1", **wrong}
    with pytest.raises(Denied):
        installers.add_installer(actor=chief, source=str(folder), **told)
    assert not Image.objects.exists()


def test_an_installer_keeps_its_name_and_what_changes_of_it_is_in_the_trail(chief, folder):
    """Red when a name that volumes on hosts have can change, or a change leaves no entry."""
    told = {"actor": chief, "source": str(folder), "version": "1"}
    image = installers.add_installer(**told, name="n", title="First")
    with pytest.raises(Denied, match="First 1, which is called n. Keep that name") as refused:
        installers.add_installer(**told, name="other", title="Second")
    assert refused.value.field == "name" and Image.objects.get().name == "n"
    for _turn in range(2):
        installers.add_installer(**told, name="n", title="Second", os="debian12")
    image.refresh_from_db()
    entry = AuditEntry.objects.get(verb="installer.changed")
    assert (image.title, image.os) == ("Second", "debian12")
    assert (entry.before["title"], entry.after["title"], entry.after["os"]) == ("First", "Second", "debian12")


def test_an_installers_folder_is_kept_whole(chief, folder, monkeypatch):
    """Red when a folder is kept as it was said: a worker would look for it in its own."""
    monkeypatch.chdir(folder)
    installers.add_installer(actor=chief, source=".", name="n", title="t", version="1")
    assert Image.objects.get().source == str(folder.resolve())


def test_a_newer_installer_in_the_same_folder_takes_the_older_ones_place(chief, folder):
    call_command("add_installer", str(folder), username="chief")
    (folder / "linux").write_bytes(b"newer")
    call_command("add_installer", str(folder), username="chief")
    assert [bool(image.source) for image in Image.objects.order_by("pk")] == [False, True]


def test_a_folder_without_an_installer_and_people_without_the_right_are_refused(chief, cast, tmp_path):
    with pytest.raises(CommandError, match=r"linux and initrd\.gz"):
        call_command("add_installer", str(tmp_path), username="chief")
    told = {"name": "n", "title": "t", "version": "1"}
    with pytest.raises(Denied):
        installers.add_installer(actor=cast.operator, source=str(tmp_path), **told)
