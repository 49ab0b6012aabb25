"""Each image, built by the script and booted through the driver, does what its list entry promises."""

import hashlib
import json
import os
import secrets
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from portal.drivers.registry import driver_for
from portal.drivers.types import DeviceModel
from tests.images import documents
from tests.images.guests import GIB, HASH, HOSTNAME, URI, Guest, as_json, as_yaml, wait_for
from vms.cloud import Invalid, check_user_data

pytestmark = pytest.mark.live

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "scripts/images/build"
IMAGES = Path(os.environ.get("GATEHOUSE_IMAGES", ROOT / "var/images"))
TO_KEPT_FOLDER = "if [ -d /data ]; then cd /data; fi"
CASES = {
    # name of the case: image, its user-data, its subnet, seconds until it answers on a busy machine, devices
    "debian": ("debian-12", as_yaml, "10.213.91", 360, DeviceModel.PARAVIRTUAL),
    "tiny": ("tiny", as_yaml, "10.213.92", 120, DeviceModel.PARAVIRTUAL),
    "tiny-json": ("tiny", as_json, "10.213.93", 120, DeviceModel.PARAVIRTUAL),
    "tiny-emulated": ("tiny", as_yaml, "10.213.94", 120, DeviceModel.EMULATED),
}


@pytest.fixture(scope="module")
def images() -> dict[str, dict]:
    """The list of images, built now unless current ones are there."""
    subprocess.run([BUILD, IMAGES], check=True, timeout=1800)
    return {entry["name"]: entry for entry in json.loads((IMAGES / "images.json").read_text())}


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("key") / "id"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return path


@pytest.fixture(scope="module", params=list(CASES))
def guest(request: pytest.FixtureRequest, images: dict[str, dict], key: Path) -> Iterator[Guest]:
    """A machine that answers by SSH; one for all tests of a case."""
    name, user_data, subnet, patience, devices = CASES[request.param]
    driver = driver_for(URI)
    prefix = f"gttest-a-{secrets.token_hex(4)}"
    made = Guest(driver, prefix, images[name], subnet, key, patience, user_data, devices)
    try:
        made.start(IMAGES)
        made.address = wait_for("lease", patience, made.lease)
        wait_for("SSH", patience, lambda: made.ssh("true").returncode == 0)
        yield made
    finally:
        made.remove()
        driver.close()


def test_list_describes_the_files(images: dict[str, dict]) -> None:
    assert set(images) == {"debian-12", "tiny"}
    for entry in images.values():
        file = IMAGES / entry["file"]
        assert hashlib.sha256(file.read_bytes()).hexdigest() == entry["sha256"]
        shown = subprocess.check_output(["qemu-img", "info", "--output=json", file])
        assert json.loads(shown)["virtual-size"] == entry["virtual_size_bytes"]
        assert json.loads(shown)["format"] == entry["format"]
    schema = json.loads((IMAGES / "cloud-config-schema.json").read_text())
    assert "cc_ssh" in schema["$defs"]


@pytest.mark.parametrize("name", documents.OWN)
def test_debians_schema_takes_what_is_asked_for(images: dict[str, dict], settings, name: str) -> None:
    """Red when check_user_data() refuses what is fine. What becomes of it the guest is asked below."""
    settings.CLOUD_CONFIG_SCHEMA = IMAGES / "cloud-config-schema.json"
    check_user_data(documents.OWN[name], "debian")


@pytest.mark.parametrize("name", documents.RIVALS)
def test_the_form_refuses_what_would_take_the_key_away(images: dict[str, dict], settings, name: str) -> None:
    """Red when `user` is not in OURS, or check_user_data() does not ask `contends`."""
    settings.CLOUD_CONFIG_SCHEMA = IMAGES / "cloud-config-schema.json"
    with pytest.raises(Invalid):
        check_user_data(documents.RIVALS[name], "debian")


def test_second_build_touches_nothing(images: dict[str, dict]) -> None:
    """Red when `is_current` in scripts/images/build always fails."""
    before = {path: path.stat().st_mtime_ns for path in IMAGES.iterdir()}
    subprocess.run([BUILD, IMAGES], check=True)
    assert {path: path.stat().st_mtime_ns for path in IMAGES.iterdir()} == before


def test_an_image_that_wants_root_is_not_built_without_and_says_so() -> None:
    """Red when the line that names what is not built is left out of scripts/images/build."""
    # Not below the tests' own folder, which is closed to others.
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        call = ["setpriv", "--reuid", "65534", "--clear-groups", str(BUILD), f"{folder}/new", "debian-12"]
        result = subprocess.run(call, capture_output=True, text=True)
        assert not list(Path(folder).rglob("*.qcow2"))
    assert "only root can give" in result.stdout


def test_interrupted_build_leaves_no_half_image(tmp_path: Path) -> None:
    """Red when `clean` in scripts/images/build does nothing."""

    def files(pattern: str) -> set[str]:
        return {path.name for path in tmp_path.glob(pattern)}

    running = subprocess.Popen([BUILD, tmp_path, "tiny"], start_new_session=True)
    wait_for("packages", 60, lambda: files(".build-*/packages"))
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    assert files(".build-*") and not files("[!.]*")
    subprocess.run([BUILD, tmp_path, "tiny"], check=True)
    assert files("*") == {".lock", "images.json", "tiny.qcow2"}


def test_missing_library_stops_the_build(tmp_path: Path) -> None:
    """Red when `fail` in tiny_libraries is replaced by `continue`."""
    for name in ("from/lib", "from/usr/lib", "to/lib"):
        (tmp_path / name).mkdir(parents=True)
    script = 'cd "$1"; . scripts/lib/common.sh; . scripts/images/lib.sh; . scripts/images/tiny/recipe.sh'
    call = [
        "bash",
        "-euc",
        f'{script}; tiny_libraries "$2/from" "$2/to" /bin/bash',
        "bash",
        str(ROOT),
        str(tmp_path),
    ]
    result = subprocess.run(call, capture_output=True, text=True)
    assert result.returncode == 1
    assert "no package holds lib" in result.stderr


def test_address_is_in_the_subnet(guest: Guest) -> None:
    assert guest.address.startswith(f"{guest.subnet}.")


def test_hostname_comes_from_the_seed(guest: Guest) -> None:
    """Red when tiny's /etc/seed looks for `hostname` in place of `local-hostname` in meta-data."""
    assert guest.ssh("hostname").stdout.strip() == HOSTNAME


def test_password_login_is_refused(guest: Guest) -> None:
    """Red when dropbear is started without -s, or 60-keys-only.conf is removed."""
    result = guest.ssh("true", "-o", "PubkeyAuthentication=no")
    assert result.returncode == 255
    assert "Permission denied (publickey)" in result.stderr


def test_only_the_seed_sets_a_password(guest: Guest) -> None:
    """Red when `password` in tiny's /etc/seed is misspelt, or root is not locked in its recipe."""
    shadow = guest.ssh("sudo -n cat /etc/shadow 2>/dev/null || cat /etc/shadow").stdout.splitlines()
    people = {line.split(":")[0]: line.split(":")[1] for line in shadow}
    assert people
    expected = {"root": HASH} if guest.user_data is as_json else {}
    assert {name: word for name, word in people.items() if word[:1] not in {"!", "*"}} == expected


def test_disk_grew(guest: Guest) -> None:
    """Red when 90_gatehouse.cfg turns growpart off (`growpart: {mode: "off"}`)."""
    wanted = guest.image["virtual_size_bytes"] + GIB
    assert int(guest.ssh(f"cat /sys/block/{guest.disk_name}/size").stdout) * 512 == wanted
    if guest.image["cloud_init"]:  # tiny keeps its file system's size: see docs/images.md
        kib = int(guest.ssh("df --output=size / | tail -n 1").stdout)
        assert kib * 1024 > wanted - 0.2 * GIB


def test_the_guest_sees_the_devices_it_was_given(guest: Guest) -> None:
    """Red when a device of the emulated model is virtio (vendor 1af4), or tiny's recipe leaves out ahci."""
    assert guest.devices.value in guest.image.get("device_models", ["paravirtual"])
    vendors = set(guest.ssh("cat /sys/bus/pci/devices/*/vendor").stdout.split())
    assert ("0x1af4" in vendors) is (guest.devices is DeviceModel.PARAVIRTUAL)
    card = Path(guest.ssh("readlink -f /sys/class/net/eth0/device/driver").stdout.strip()).name
    assert card == ("virtio_net" if guest.devices is DeviceModel.PARAVIRTUAL else "e1000e")


def test_agent_answers(guest: Guest) -> None:
    if guest.devices is DeviceModel.EMULATED:
        # There is no channel to it, and the driver says so at once.
        assert guest.driver.guest_agent_ping(guest.uuid) is False
        return
    def ping() -> bool:
        request = json.dumps({"execute": "guest-ping"})
        return guest.virsh("qemu-agent-command", f"{guest.prefix}-vm", request).returncode == 0

    wait_for("answer from the agent", guest.patience, ping)


def test_serial_console_shows_a_login(guest: Guest) -> None:
    """Red when `console=ttyS0` is taken out of grub.cfg (debian) or of inittab (tiny)."""
    wait_for("login prompt", guest.patience, lambda: guest.serial_says(f"{HOSTNAME} login:"))


@pytest.fixture(scope="module")
def judged(guest: Guest) -> dict[str, dict]:
    """What a guest's own cloud-init says of every document that the portal writes: one slow call for all."""
    all_of_them = {**documents.merged(), **documents.overridden(), "wrong": "#cloud-config\nruncmd: 5\n"}
    script = shlex.quote(Path(__file__).with_name("in_guest.py").read_text())
    done = guest.ssh(f"sudo -n python3 -c {script}", told=json.dumps(all_of_them), seconds=guest.patience)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("guest", ["debian"], indirect=True)
def test_debians_cloud_init_takes_every_document_that_the_portal_writes(judged: dict[str, dict]) -> None:
    """Red when the merge writes what Debian's schema refuses, such as an empty list of keys."""
    refused = {name: answer["refused"] for name, answer in judged.items() if answer["refused"]}
    # Without its library for schemas cloud-init would take anything.
    assert "runcmd" in refused.pop("wrong")
    assert refused == {}


@pytest.mark.parametrize("guest", ["debian"], indirect=True)
def test_debians_cloud_init_makes_the_user_with_the_key_whatever_is_added(judged: dict[str, dict]) -> None:
    """Red when user_data() keeps `user`, or entries of `users` that contend, as they were given."""
    for name in (*documents.OWN, *documents.RIVALS):
        person = judged[name]["people"]["debian"]
        assert (person["ssh_authorized_keys"], person["lock_passwd"]) == ([documents.KEY], True), name
        assert not person.keys() & {"inactive", "ssh_redirect_user"}
    assert judged["as root"]["people"]["root"]["ssh_authorized_keys"] == [documents.KEY]
    assert judged["people and groups"]["people"]["ann"]["ssh_authorized_keys"] == [documents.OTHER_KEY]


def test_power_button_powers_off(guest: Guest) -> None:
    assert guest.ssh(f"{TO_KEPT_FOLDER} && echo kept >marker").returncode == 0
    guest.virsh("shutdown", f"{guest.prefix}-vm", "--mode", "acpi")
    wait_for("power off", guest.patience, guest.is_off)


def test_shutdown_powers_off(guest: Guest) -> None:
    """Last: it leaves the machine off. What was written before the power button is still there."""
    guest.driver.start(guest.uuid)
    wait_for("SSH", guest.patience, lambda: guest.ssh("true").returncode == 0)
    assert guest.ssh(f"{TO_KEPT_FOLDER} && cat marker").stdout == "kept\n"
    guest.driver.shutdown(guest.uuid)
    wait_for("power off", guest.patience, guest.is_off)
