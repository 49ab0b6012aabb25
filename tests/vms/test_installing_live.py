"""Debian's installer on the real libvirt: its first screen on the serial line, whatever dies meanwhile."""

import asyncio
import io
import re
import signal
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from pycdlib import PyCdlib

from portal.drivers.console import ConsoleKind, open_console
from portal.drivers.libvirt.xml.domain import DomainElement
from portal.drivers.seed import build_iso
from portal.drivers.types import BootFileSpec, DomainState, SeedSpec
from portal.hosts import installers
from portal.hosts.images import boot_files
from portal.hosts.management.commands.add_installer import DEBIAN
from portal.hosts.models import ImageAttachment
from portal.operations import services as operations
from portal.operations.models import Counter
from portal.operations.runner import leftovers
from portal.operations.states import State
from tests import factories
from tests.cds import make_cd
from tests.conftest import let_heartbeats_lapse
from tests.factories import GIB
from tests.vms.real import NETWORK, URI, ask, force_away, on_host
from vms import profiles
from vms.installing import KIND
from vms.models import Flavour, InstallTemplate, VirtualMachine

pytestmark = [
    pytest.mark.database,
    pytest.mark.live,
    pytest.mark.usefixtures("trail_that_can_be_flushed"),
]
STEPS = [step.name for step in KIND.steps]
#: Whose workers `worker` runs.
WORKER = "tests.vms.killed_builder"
#: Seconds until Debian's installer asks its first question on an emulated processor.
FIRST_SCREEN = 240
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIO3pRSmoEbnApkTfXeqmr+G9jgvKZmVNfC69Nf1c60Rk"

#: What the installer asks before it has a network, and what tells on the serial line that it was read.
ANSWERS = (
    "d-i debian-installer/locale string C.UTF-8\nd-i keyboard-configuration/xkb-keymap select us\n"
    "d-i preseed/early_command string echo answers-of-$hostname > /dev/ttyS0\n"
)


def offered(pool, image, path):
    """Return an item of an installer that lies at `path` in the pool of the tests."""
    host = factories.make_host(uri=URI)
    factories.make_place(host, pool.name, pool.path, image).images.update(path=path)
    Counter.objects.create(scope=host.scope, resource="memory", limit=GIB)
    made = factories.make_catalogue(image, factories.make_network(78, uuid=NETWORK))
    Flavour.objects.update(memory=image.min_memory, disk=image.virtual_size)
    made.flavour.refresh_from_db()
    return made


@pytest.fixture
def catalogue(real, chief):
    """An item of Debian's installer, whose kernel lies in the pool of the tests."""
    driver, pool, _entry, _volume = real
    image = installers.add_installer(actor=chief, source=DEBIAN, name="d-i", title="Debian", version="12")
    kernel = driver.write_boot_file(BootFileSpec(pool.name, image.volume_name, f"{DEBIAN}/linux"))
    yield offered(pool, image, kernel.path)
    driver.delete_volume(pool.name, image.volume_name)


@pytest.fixture
def approve(cast, real, catalogue):
    """Return a function that approves a request for an installation."""
    asked = []

    def approve(**wish):
        asked.append(ask(cast, catalogue, user="ada", **wish))
        return operations.decide(
            actor=cast.approver, operation=asked[-1], spec_hash=asked[-1].spec_hash, approved=True
        )

    yield approve
    for operation in asked:
        force_away(real[0], operation)
        operation.refresh_from_db()
        real[0].delete_volume(operation.identifiers["pool"], operation.identifiers["initrd"])


def check_installs(driver, operation):
    """Say that the installer runs, that the next start is from the disk, and that nothing more is there."""
    operation.refresh_from_db()
    assert operation.state == State.SUCCEEDED
    machine = VirtualMachine.objects.get(built_by=operation)
    assert driver.domain_info(str(machine.uuid)).state is DomainState.RUNNING
    found = driver.definition(str(machine.uuid))
    assert DomainElement.from_xml(found.running).boot is not None
    later = DomainElement.from_xml(found.persistent)
    assert later.boot is None and not later.installs
    mine = [name for name in on_host(driver, operation) if not name.endswith(".kernel")]
    assert mine == [operation.identifiers["domain"], operation.identifiers["volume"]]


def shown(uuid, pattern):
    """Return what the serial line says until `pattern`, without what only moves the cursor."""

    async def read():
        said = b""
        async with await open_console(URI, uuid, ConsoleKind.SERIAL, timeout=30) as console:
            with suppress(TimeoutError):
                async with asyncio.timeout(FIRST_SCREEN):
                    while not re.search(pattern, plain(said)):
                        said += await console.read()
        return plain(said)

    return asyncio.run(read())


def plain(said):
    return re.sub(r"\x1b[\[()][0-9;?]*[A-Za-z]?", "", said.decode("utf-8", "replace"))


def test_the_installer_shows_its_first_screen_on_the_serial_line(worker, real, approve):
    """Red when the kernel is not told of the serial line, or the initrd is not whole."""
    queued = approve()
    assert worker(queued.pk) == 0
    check_installs(real[0], queued)
    said = shown(queued.identifiers["uuid"], "<Tab> moves")
    assert "Select a language" in said, said[-3000:]


def test_answers_are_read_and_nothing_is_asked_that_they_answer(worker, real, approve):
    """Red when the archive behind the initrd is not where the kernel looks for it: it asks for a language."""
    template = InstallTemplate.objects.create(name="Until the network", format="preseed", text=ANSWERS)
    queued = approve(template=template, ssh_keys=KEY)
    assert worker(queued.pk) == 0
    name = queued.frozen["pinned"]["name"]
    said = shown(queued.identifiers["uuid"], f"answers-of-{name}|Select a language")
    assert f"answers-of-{name}" in said and "Select a language" not in said


@pytest.mark.parametrize("point", [f"{when}:{step}" for step in STEPS for when in ("before", "after")])
def test_killed_meanwhile_the_next_worker_goes_on(worker, real, approve, point):
    """Red when take_over_lapsed takes nothing, or a step is not idempotent."""
    queued = approve()
    assert worker(queued.pk, point) == -signal.SIGKILL
    let_heartbeats_lapse()
    assert worker("reap") == 0
    check_installs(real[0], queued)


@pytest.mark.parametrize("failing", STEPS)
def test_a_step_that_fails_after_it_acted_leaves_nothing(worker, real, approve, failing):
    """Red when WriteAnswers.undo leaves the initrd."""
    queued = approve()
    assert worker(queued.pk, failing=failing) == 0
    queued.refresh_from_db()
    assert queued.state == State.FAILED and leftovers(queued) == []
    assert [name for name in on_host(real[0], queued) if not name.endswith(".kernel")] == []
    assert not VirtualMachine.objects.exists()


@pytest.fixture
def on_cd(real, tmp_path):
    """An item of Debian's installer on a CD laid out as Debian's own, in the pool of the tests."""
    driver, pool, _entry, _volume = real
    files = {"install.amd/vmlinuz": Path(DEBIAN, "linux"), "install.amd/initrd.gz": Path(DEBIAN, "initrd.gz")}
    cd = make_cd(tmp_path / "cd.iso", files)
    image = factories.make_image(
        kind="iso", name="cd", title="Debian's CD", os="debian12", cloud_init=False, source=str(cd),
        boot_files=boot_files.found(str(cd)), min_memory=GIB // 2, virtual_size=GIB // 4,
    )  # fmt: skip
    yield offered(pool, image, driver.upload_image(pool.name, image.volume_name, str(cd)).path)
    driver.delete_volume(pool.name, image.volume_name)


@pytest.fixture
def from_cd(cast, real, on_cd):
    """Return a function that approves an installation from the CD, with answers up to the network."""
    begun = []

    def approve():
        template = InstallTemplate.objects.create(name="Until the network", format="preseed", text=ANSWERS)
        asked = ask(cast, on_cd, user="ada", template=template, ssh_keys=KEY)
        told = {"actor": cast.approver, "operation": asked, "spec_hash": asked.spec_hash}
        begun.append(operations.decide(**told, approved=True))
        return begun[-1]

    yield approve
    for operation in begun:
        force_away(real[0], operation)
        operation.refresh_from_db()
        for name in ("kernel", "initrd"):
            real[0].delete_volume(operation.identifiers["pool"], operation.identifiers[name])


def check_installs_from_cd(driver, operation):
    """Say that the installer runs from files of its CD, and that none of them is left."""
    operation.refresh_from_db()
    told = operation.identifiers
    assert operation.state == State.SUCCEEDED, list(operation.steps.values_list("error_raw", flat=True))
    assert driver.domain_info(told["uuid"]).state is DomainState.RUNNING
    found = driver.definition(told["uuid"])
    now, later = DomainElement.from_xml(found.running), DomainElement.from_xml(found.persistent)
    assert now.boot.kernel == told["kernel_path"] and later.boot is None and not later.installs
    assert now.cds == later.cds == (told["image_path"],)
    left = {volume.name for volume in driver.list_volumes(told["pool"])}
    assert told["volume"] in left and not left & {told["kernel"], told["initrd"], told["seed"]}


def test_debians_cd_is_installed_by_a_preseed(worker, real, from_cd):
    """Red when what goes to the host is not the CD's kernel and initrd, whole, with the answers behind."""
    queued = from_cd()
    assert worker(queued.pk) == 0
    check_installs_from_cd(real[0], queued)
    name = queued.frozen["pinned"]["name"]
    said = shown(queued.identifiers["uuid"], f"answers-of-{name}|Select a language")
    assert f"answers-of-{name}" in said and "Select a language" not in said, said[-3000:]


@pytest.mark.parametrize("point", ["after:answers", "after:domain", "after:start", "after:disk_boot"])
def test_killed_while_it_starts_from_a_cds_files_the_next_worker_goes_on(worker, real, from_cd, point):
    """Red when a step of it is not idempotent: the kernel would be written anew under a guest that starts."""
    queued = from_cd()
    assert worker(queued.pk, point) == -signal.SIGKILL
    let_heartbeats_lapse()
    assert worker("reap") == 0
    check_installs_from_cd(real[0], queued)


@pytest.mark.parametrize("failing", ["answers", "disk_boot"])
def test_a_step_that_fails_leaves_nothing_of_a_cds_files(worker, real, from_cd, failing):
    """Red when WriteAnswers.undo leaves the kernel."""
    queued = from_cd()
    assert worker(queued.pk, failing=failing) == 0
    queued.refresh_from_db()
    assert queued.state == State.FAILED and leftovers(queued) == []
    cd = Path(queued.identifiers["image_path"]).name
    assert on_host(real[0], queued) == [cd] and not VirtualMachine.objects.exists()


@contextmanager
def on_cds(real, source, *images, **host_values):
    """Let the first of `images` be an item's installer; each lies on this machine as the CD at `source`."""
    driver, pool, _entry, _volume = real
    host = factories.make_host(uri=URI, **host_values)
    place = factories.make_place(host, pool.name, pool.path, images[0])
    for image in images:
        volume = driver.upload_image(pool.name, image.volume_name, str(source))
        told = {"defaults": {"path": volume.path}}
        ImageAttachment.objects.update_or_create(image=image, pool=place, **told)
    Counter.objects.create(scope=host.scope, resource="memory", limit=GIB)
    made = factories.make_catalogue(images[0], factories.make_network(78, uuid=NETWORK))
    Flavour.objects.update(memory=GIB // 4)
    made.flavour.refresh_from_db()
    yield made
    for image in images:
        driver.delete_volume(pool.name, image.volume_name)


CD = {"kind": "iso", "cloud_init": False, "min_memory": GIB // 4, "virtual_size": GIB // 4}


@pytest.fixture
def windows(real, tmp_path):
    """An item of something on a CD that is said to be a Windows, and the CD of drivers, on this machine."""
    source = tmp_path / "cd.iso"
    source.write_bytes(build_iso(SeedSpec("pool", "x.iso", "instance-id: x", "#cloud-config")))
    installer = factories.make_image(name="setup", os="win2k19", **CD)
    drivers = factories.make_image(name=profiles.DRIVERS, title="Drivers", **CD)
    with on_cds(real, source, installer, drivers, readiness=asdict(real[0].readiness())) as made:
        yield made


#: What a BIOS starts of a CD: it writes what stands behind it to the first serial port, five times a second.
SPEAKS = bytes.fromhex(
    "fc 31c0 8ed8 be287c ac 84c0 7410 50 bafd03 ec a820 74fb 58 baf803 ee ebeb b486 b90300 31d2 cd15 ebdd"
)
SAYS = b"an installer from a CD"


@pytest.fixture
def speaking_cd(real, tmp_path):
    """An item of a CD that a machine can be started from, on this machine."""
    source = tmp_path / "cd.iso"
    disc, sector = PyCdlib(), (SPEAKS + SAYS + b"\r\n").ljust(2048, b"\0")
    disc.new(vol_ident="SPEAKS")
    disc.add_fp(io.BytesIO(sector), len(sector), "/BOOT.;1")
    disc.add_eltorito("/BOOT.;1")
    disc.write(str(source))
    disc.close()
    with on_cds(real, source, factories.make_image(name="speaks", **CD)) as made:
        yield made


@contextmanager
def installed(cast, worker, real, catalogue):
    """Ask for a machine of `catalogue`, build it, and take it away in the end."""
    asked = ask(cast, catalogue, user="ada")
    told = {"actor": cast.approver, "operation": asked, "spec_hash": asked.spec_hash}
    begun = operations.decide(**told, approved=True)
    try:
        assert worker(begun.pk) == 0
        begun.refresh_from_db()
        assert begun.state == State.SUCCEEDED, list(begun.steps.values_list("error_raw", flat=True))
        yield begun
    finally:
        force_away(real[0], begun)


def test_a_machine_starts_from_a_cd_and_a_person_sees_it_in_the_console(cast, worker, real, speaking_cd):
    """Red when the CD is in no drive, or the disk comes before it at the first start."""
    with installed(cast, worker, real, speaking_cd) as begun:
        assert SAYS.decode() in shown(begun.identifiers["uuid"], SAYS.decode())


def test_a_machine_for_windows_starts_with_its_board_and_both_cds(cast, worker, real, windows):
    """Red when libvirt is asked for a board that it does not give, or the drivers come first."""
    with installed(cast, worker, real, windows) as begun:
        uuid = begun.identifiers["uuid"]
        assert real[0].domain_info(uuid).state is DomainState.RUNNING
        found = real[0].definition(uuid)
        running, persistent = ET.fromstring(found.running), ET.fromstring(found.persistent)
        # Which file it is, libvirt says of what runs.
        assert running.find("os/loader").get("secure") == "yes" and running.find("os/nvram").text
        assert persistent.find("os/firmware/feature[@name='secure-boot']").get("enabled") == "yes"
        for root in (running, persistent):
            assert root.find("features/smm").get("state") == "on"
            assert root.find("devices/tpm/backend").get("version") == "2.0"
            assert root.find("clock").get("offset") == "localtime"
            drives = root.findall("devices/disk[@device='cdrom']/source")
            assert [drive.get("file") for drive in drives] == [
                begun.identifiers["image_path"],
                begun.identifiers["drivers_path"],
            ]
        # A disk that nothing was installed on leads to the CD again.
        assert [boot.get("dev") for boot in persistent.findall("os/boot")] == ["hd", "cdrom"]
