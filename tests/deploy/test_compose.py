"""What deploy/compose builds and starts fits the checkout and the settings; no image is built here."""

import fnmatch
import re
import subprocess

import pytest
import yaml

from portal.settings.paths import static_root
from portal.upkeep import environment
from tests.e2e.portals import ROOT

COMPOSE = ROOT / "deploy/compose"
CONTAINERFILE = (COMPOSE / "Containerfile").read_text().replace("\\\n", " ")
TEXT = (COMPOSE / "compose.yaml").read_text()
SERVICES = yaml.safe_load(TEXT)["services"]
PORTAL = [name for name in SERVICES if name not in ("database", "redis")]


def test_what_is_copied_is_there_and_not_ignored():
    """Red when a COPY names a file that went, or .dockerignore shuts it out: the build would end there."""
    named = [
        word
        for line in re.findall(r"^COPY (?!--from)(.*)$", CONTAINERFILE, re.M)
        for word in line.split()[:-1]
        if word != "."
    ]
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    ignored = [line for line in lines if line[:1] not in ("", "#")]
    assert named
    for pattern in named:
        found = [path.name for path in ROOT.glob(pattern)]
        assert found, pattern
        assert not [name for name in found if any(fnmatch.fnmatch(name, shut) for shut in ignored)]


def test_what_the_image_runs_is_not_ignored():
    """Red when .dockerignore names a folder that the portal is made of."""
    ignored = set((ROOT / ".dockerignore").read_text().split())
    needed = {"manage.py", "networks", "portal", "vms", "templates", "static", "scripts"}
    assert not ignored & needed
    assert {".git", "var", "deploy/compose/.env"} <= ignored


def test_parts_are_given_settings_that_the_portal_reads():
    """Red when a name of the environment is misspelt: nothing would say so."""
    for part in PORTAL:
        assert set(SERVICES[part]["environment"]) <= set(environment.NAMES), part


def test_the_example_names_all_that_the_composition_asks_for():
    """Red when compose.yaml reads a name that env.example does not have."""
    asked = set(re.findall(r"(?<!\$)\$\{(\w+)", TEXT))
    told = set(re.findall(r"^#?([A-Z_]+)=", (COMPOSE / "env.example").read_text(), re.M))
    assert "PUBLIC_NAME" in asked
    assert told - {"COMPOSE_PROJECT_NAME"} == asked


def test_debians_docker_compose_can_read_it():
    """Version 1.29 knows these and `x-` at the top and calls the rest invalid. Red with a `name` there."""
    known = {"services", "volumes", "networks", "secrets", "configs", "version"}
    assert {key for key in yaml.safe_load(TEXT) if not key.startswith("x-")} <= known


def test_the_state_has_the_owners_and_modes_that_it_has_under_systemd():
    """Red when the group may write the folder: the web process could put another key in a key's place."""
    users = {"900": "gatehouse", "901": "gatehouse-worker"}
    made = {
        path: (users[owner], users[group], mode.lstrip("0"))
        for owner, group, mode, path in re.findall(
            r"install -d -o (\d+) -g (\d+) -m (\d+) (/var/lib/gatehouse\S*)", CONTAINERFILE
        )
    }
    lines = (ROOT / "deploy/systemd/tmpfiles.conf").read_text()
    under = {
        path: (owner, group, mode.lstrip("0"))
        for path, mode, owner, group in re.findall(r"^d (\S+) (\d+) (\S+) (\S+)", lines, re.M)
    }
    # Neither SQLite nor static files lie in a container's state.
    for name in ("db", "static"):
        del under[f"/var/lib/gatehouse/{name}"]
    assert made == under


def test_nothing_of_a_state_comes_into_the_image():
    """Red when the last stage collects static files itself: it would keep the signing key that this makes."""
    last = CONTAINERFILE.rsplit("\nFROM ", 1)[1]
    assert "need_assets" in CONTAINERFILE and "need_assets" not in last and "manage.py" not in last
    assert not re.search(r"\b(gcc|npm|libvirt-dev|python3-dev)\b", last)


def test_static_files_of_an_image_win_over_those_of_a_state(tmp_path):
    """Red when the state's is taken always: after an upgrade it has the files of the version before."""
    code, state = tmp_path / "code", tmp_path / "state"
    (state / "static").mkdir(parents=True)
    assert static_root(code, state) == state / "static"
    (code / "collected").mkdir(parents=True)
    assert static_root(code, state) == code / "collected"
    assert " collected " in CONTAINERFILE


@pytest.mark.parametrize("name", ["collected", "static"])
def test_what_is_collected_is_no_part_of_the_checkout(name):
    """Red when somebody commits a folder `collected`: every portal of that checkout would serve it."""
    tracked = subprocess.run(["git", "ls-files", name], cwd=ROOT, capture_output=True, text=True, check=True)
    assert bool(tracked.stdout) is (name == "static")
