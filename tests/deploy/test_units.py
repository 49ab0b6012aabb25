"""What deploy/ offers for systemd and containers is sound, and starts the parts that scripts/run starts."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.e2e.portals import ROOT

UNITS = ROOT / "deploy/systemd"
PARTS = ("web", "worker", "scheduler", "watcher", "consoles")


def _commands_of_run() -> dict[str, list[str]]:
    """Return the words of each part's command in scripts/run, without what differs from place to place."""
    text = (ROOT / "scripts/run").read_text().replace("\\\n", " ")
    text = text.replace("web_command python", "start web python")
    found = dict(re.findall(r"^start (\w+) (python .*)$", text, re.M))
    return {name: _essence(shlex.split(found[name])) for name in PARTS}


def _essence(words: list[str]) -> list[str]:
    own = {"python", "${TLS_OPTIONS[@]}"}
    return [word for word in words if word not in own and not re.search(r"[$/]|^0\.0\.0\.0$|^8000$", word)]


@pytest.mark.parametrize("part", PARTS)
def test_units_and_containers_start_what_run_starts(part):
    """Red when a queue or an option is changed in one of the three places alone."""
    wanted = _commands_of_run()[part]
    unit = (UNITS / f"gatehouse-{part}.service").read_text()
    words = shlex.split(re.search(r"^ExecStart=(.*)$", unit, re.M)[1])[1:]
    assert _essence(words) == wanted
    services = yaml.safe_load((ROOT / "deploy/compose/compose.yaml").read_text())["services"]
    assert _essence(services[part]["command"]) == wanted


def test_units_and_containers_back_up_before_they_migrate():
    """Red when the backup is taken out, comes after the migration, or fails without stopping it."""
    backup, migrate = "manage.py backup --before-upgrade", "manage.py migrate --verbosity 0"
    unit = (UNITS / "gatehouse-migrate.service").read_text()
    started = re.findall(r"^ExecStart=/opt/gatehouse/.venv/bin/python (.*)$", unit, re.M)
    assert started == [backup, migrate]
    services = yaml.safe_load((ROOT / "deploy/compose/compose.yaml").read_text())["services"]
    assert services["migrate"]["command"][2].startswith(f"python {backup} && python {migrate} && ")
    # With PostgreSQL the backup is pg_dump's.
    assert " postgresql-client " in (ROOT / "deploy/compose/Containerfile").read_text()


def test_containers_offer_the_images_that_are_mounted():
    """Red when bootstrap is not told of images.json, or a part does not see the folder (read-only)."""
    services = yaml.safe_load((ROOT / "deploy/compose/compose.yaml").read_text())["services"]
    told = "bootstrap $$(test ! -s /srv/images/images.json || echo --images /srv/images/images.json)"
    assert told in services["migrate"]["command"][2]
    for part in ("migrate", *PARTS):
        assert any(volume.endswith(":/srv/images:ro") for volume in services[part]["volumes"])


def test_who_works_on_hypervisors_is_a_member_of_libvirts_group():
    """polkit looks at users' own groups, not at the process's. Red when sysusers.conf has no such line."""
    members = re.findall(r"^m (\S+) libvirt$", (UNITS / "sysusers.conf").read_text(), re.M)
    units = [path.read_text() for path in UNITS.glob("*.service")]
    users = {
        re.search(r"^User=(.*)$", unit, re.M)[1]
        for unit in units
        if re.search(r"^SupplementaryGroups=libvirt$", unit, re.M)
    }
    assert users == set(members) != set()


def test_the_web_unit_and_container_have_nothing_of_the_workers():
    """Red when the web unit gets libvirt's group, or both containers one user."""
    web, worker = ((UNITS / f"gatehouse-{part}.service").read_text() for part in ("web", "worker"))
    assert "SupplementaryGroups=libvirt" in worker and "SupplementaryGroups=libvirt" not in web
    assert "InaccessiblePaths=-/run/libvirt" in web
    assert re.search(r"^User=(.*)$", web, re.M)[1] != re.search(r"^User=(.*)$", worker, re.M)[1]
    services = yaml.safe_load((ROOT / "deploy/compose/compose.yaml").read_text())["services"]
    assert services["web"]["user"] != services["worker"]["user"]
    for part in PARTS:
        assert services[part]["cap_drop"] == ["ALL"]


def test_the_worker_may_confine_what_reads_a_strangers_image():
    """Red when Landlock's calls are not let through, or containers lack the program that looks at images."""
    worker = (UNITS / "gatehouse-worker.service").read_text()
    allowed = " ".join(re.findall(r"^SystemCallFilter=(.*)$", worker, re.M)).split()
    assert {f"landlock_{call}" for call in ("create_ruleset", "add_rule", "restrict_self")} < set(allowed)
    assert "qemu-utils" in (ROOT / "deploy/compose/Containerfile").read_text()


@pytest.mark.live
def test_systemd_finds_no_fault_in_the_units(tmp_path):
    """Red when an option's name is misspelt: systemd would ignore it and say so only in its log."""
    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.touch(mode=0o755)
    for unit in [*UNITS.glob("*.service"), *UNITS.glob("*.target")]:
        (tmp_path / unit.name).write_text(unit.read_text().replace("/opt/gatehouse", str(tmp_path)))
    files = sorted(map(str, Path(tmp_path).glob("gatehouse*")))
    done = subprocess.run(["systemd-analyze", "verify", *files], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip()) == (0, "")


@pytest.mark.live
def test_systemd_counts_the_web_unit_as_well_confined():
    """Red when a third of the confinement is taken out; its scale goes from 0 (best) to 10."""
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--threshold=25", UNITS / "gatehouse-web.service"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-400:]


@pytest.mark.live
def test_the_users_and_folders_are_ones_that_systemd_makes(tmp_path):
    """Red when a line of sysusers.conf or tmpfiles.conf cannot be read, or names nobody."""
    (tmp_path / "etc").mkdir()
    made = ["systemd-sysusers", f"--root={tmp_path}", UNITS / "sysusers.conf"]
    assert subprocess.run(made, capture_output=True, text=True, check=True).returncode == 0
    users = (tmp_path / "etc/passwd").read_text()
    assert "gatehouse:" in users and "gatehouse-worker:" in users
    folders = ["systemd-tmpfiles", "--create", f"--root={tmp_path}", UNITS / "tmpfiles.conf"]
    assert subprocess.run(folders, capture_output=True, text=True, check=True).stderr == ""
    assert (tmp_path / "var/lib/gatehouse/db").stat().st_mode & 0o7777 == 0o2770
