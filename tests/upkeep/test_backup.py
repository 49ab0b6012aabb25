"""A backup is whole and true, a restore loses nothing, and neither does harm when something is wrong."""

import asyncio
import io
import json
import os
import re
import resource
import shutil
import subprocess
import tarfile
import threading
from pathlib import Path

import pytest
from asgiref.sync import sync_to_async
from django.core.management import call_command
from django.db import connections, transaction
from django.db.migrations.recorder import MigrationRecorder

from portal.accounts.models import Project
from portal.audit import services as audit
from portal.audit.models import AuditEntry
from portal.hosts.keys import current_key, ensure_key
from portal.hosts.models import SshKey
from portal.upkeep import archive, databases, environment, services
from portal.upkeep.errors import UpkeepError

pytestmark = [
    pytest.mark.database,
    pytest.mark.usefixtures("trail_that_can_be_flushed"),
]


@pytest.fixture
def state(settings, tmp_path):
    """A state folder with a key and an image; the database is the tests' own."""
    folder = tmp_path / "state"
    (folder / "images").mkdir(parents=True)
    (folder / "images" / "tiny.qcow2").write_bytes(b"an image")
    (folder / "keys").mkdir()
    (folder / "keys" / "host").write_text("the first key")
    (folder / "secret_key").write_text("sign")
    (folder / "run").mkdir()
    (folder / "run" / "web.pid").write_text("1")
    (folder / "exports" / "volumes").mkdir(parents=True)
    (folder / "exports" / "volumes" / "disk.raw").write_text("as large as a disk, and still being written")
    settings.STATE_DIR = folder
    yield folder
    # A restore puts another file in the place of the tests' database; the thread in which tests of sockets
    # and consoles ask the database would go on reading the old one, and see nothing.
    asyncio.run(sync_to_async(connections.close_all)())


def note(name):
    """Make a project and its entry, sealed."""
    with transaction.atomic():
        project = Project.objects.create(name=name)
        audit.record(actor="test", verb="project.created", target=project)
    audit.seal_pending()


@pytest.fixture
def backup(state, tmp_path):
    note("first")
    target = tmp_path / "first.tar.gz"
    services.back_up(actor="test", target=target)
    return target


def projects():
    return sorted(Project.objects.values_list("name", flat=True))


def snapshot(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_restore_brings_back_database_keys_and_chain_and_sets_aside_what_was_there(state, backup):
    """Red when put_back leaves the old write-ahead log, or when _set_aside moves nothing."""
    note("second")
    (state / "keys" / "host").write_text("another key")
    done = services.restore(actor="test", source=backup, replace=True)
    assert projects() == ["first"]
    assert (state / "keys" / "host").read_text() == "the first key"
    assert (state / "images" / "tiny.qcow2").read_bytes() == b"an image"
    assert done.faults == [] and list(audit.verify()) == []
    assert audit.verify_bounded().head == done.manifest.head
    assert (done.replaced / "state" / "keys" / "host").read_text() == "another key"
    assert not (state / services.UNFINISHED).exists()
    # The trail goes on, and still refuses to be changed.
    assert AuditEntry.objects.filter(verb="portal.restored").count() == 1
    with pytest.raises(Exception, match="cannot be changed"), transaction.atomic():
        AuditEntry.objects.update(verb="forged")


def test_what_was_encrypted_opens_after_a_restore_alone(settings, state, tmp_path):
    """Red when a backup leaves out the file of encryption keys: hosts by SSH could never be reached again."""
    settings.ENCRYPTION_KEYS = state / "encryption_keys"
    private = ensure_key("test").private.open()
    services.back_up(actor="test", target=tmp_path / "keys.tar.gz")
    SshKey.objects.all().delete()
    for path in state.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    services.restore(actor="test", source=tmp_path / "keys.tar.gz", replace=True)
    assert settings.ENCRYPTION_KEYS.stat().st_mode & 0o777 == 0o600
    assert current_key().private.open() == private and "OPENSSH PRIVATE KEY" in private


def test_a_restore_writes_into_the_state_alone(state, backup, monkeypatch):
    """In a container nothing else can be written. Red when _staging() is beside the state folder."""
    used = []
    unpack = archive.unpack
    monkeypatch.setattr(archive, "unpack", lambda *paths: used.append(paths[1]) or unpack(*paths))
    services.restore(actor="test", source=backup, replace=True)
    assert used[0].is_relative_to(state) and not used[0].exists()


def test_what_was_set_aside_can_be_had_back(state, backup):
    """Red when put_back does not copy the old database first."""
    note("second")
    done = services.restore(actor="test", source=backup, replace=True)
    databases.put_back(done.replaced / databases.file_name(), replaced=state)
    assert projects() == ["first", "second"]


def test_a_portal_that_is_there_is_not_replaced_unasked(state, backup):
    """Red when restore does not ask _is_new."""
    note("second")
    before = snapshot(state)
    with pytest.raises(UpkeepError, match="--replace"):
        services.restore(actor="test", source=backup)
    assert projects() == ["first", "second"] and snapshot(state) == before


def test_the_file_is_for_its_owner_alone_and_leaves_out_what_passes(state, backup):
    """Red when the mode is left to the umask, or when PASSING is empty."""
    assert backup.stat().st_mode & 0o777 == 0o600
    with tarfile.open(backup) as tar:
        names = set(tar.getnames())
    assert "state/keys/host" in names and "state/images/tiny.qcow2" in names
    assert not any(name.startswith(("state/run", "state/exports")) for name in names)


def rewritten(source, target, change):
    """Write `source` again with its members as `change` gives them."""
    with tarfile.open(source) as old, tarfile.open(target, "w:gz") as new:
        members = [(member, old.extractfile(member).read()) for member in old]
        for member, content in change(members):
            member.size = len(content)
            new.addfile(member, io.BytesIO(content))
    return target


def _with_manifest(**changes):
    def change(members):
        member, content = members[0]
        return [(member, json.dumps(json.loads(content) | changes).encode()), *members[1:]]

    return change


def _damaged(members):
    return [
        (member, content[:-1] + b"?" if member.name.startswith("state/keys") else content)
        for member, content in members
    ]


def _with_stranger(members):
    return [*members, (tarfile.TarInfo("state/../../evil"), b"evil")]


def _without_a_member(members):
    return members[:-1]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (_damaged, "damaged or missing"),
        (_without_a_member, "damaged or missing"),
        (_with_stranger, "does not name"),
        (lambda members: members[1:], "no manifest"),
        (_with_manifest(format=99), "format 99"),
        (_with_manifest(database="oracle"), "DATABASE_URL"),
        (_with_manifest(migrations=[["vms", "9999_future"]]), "newer version"),
        (_with_manifest(files={"../evil": "0"}), "outside of itself"),
    ],
)
def test_a_backup_that_is_not_sound_changes_nothing(state, backup, tmp_path, change, sentence):
    """Red when unpack does not compare digests or names, or _check_fits is left out."""
    bad = rewritten(backup, tmp_path / "bad.tar.gz", change)
    note("second")
    before = snapshot(state)
    with pytest.raises(UpkeepError, match=sentence):
        services.restore(actor="test", source=bad, replace=True)
    assert projects() == ["first", "second"] and snapshot(state) == before
    assert not (tmp_path / "evil").exists()


def test_a_file_that_was_cut_off_is_refused(state, backup, tmp_path):
    cut = tmp_path / "cut.tar.gz"
    cut.write_bytes(backup.read_bytes()[:-2000])
    with pytest.raises(UpkeepError, match="no whole backup|damaged or missing"):
        services.restore(actor="test", source=cut, replace=True)


def test_an_interrupted_restore_can_be_run_again(state, backup, monkeypatch):
    """Red when restore removes its marker before the end, or asks for --replace again."""
    note("second")

    def die(*args, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(databases, "put_back", die)
        with pytest.raises(KeyboardInterrupt):
            services.restore(actor="test", source=backup, replace=True)
    assert (state / services.UNFINISHED).exists()
    services.restore(actor="test", source=backup)
    assert projects() == ["first"] and not (state / services.UNFINISHED).exists()


def test_a_disk_that_is_full_leaves_no_half_backup(state, tmp_path):
    """Red when write does not remove what it staged."""
    note("first")
    folder = tmp_path / "target"
    folder.mkdir()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    (state / "images" / "noise").write_bytes(os.urandom(3_000_000))
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, hard))
    try:
        with pytest.raises(UpkeepError, match="could not be written"):
            services.back_up(actor="test", target=folder / "full.tar.gz")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(folder.iterdir()) == []


def test_a_backup_taken_while_others_write_holds_whole_transactions(state, tmp_path):
    """Red when the file is copied instead of asked for its online backup, now and then."""
    over = threading.Event()

    def write():
        number = 0
        while not over.is_set() and number < 500:
            number += 1
            with transaction.atomic():
                Project.objects.create(name=f"left {number}")
                Project.objects.create(name=f"right {number}")
        connections.close_all()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        services.back_up(actor="test", target=tmp_path / "live.tar.gz")
    finally:
        over.set()
        writer.join()
    services.restore(actor="test", source=tmp_path / "live.tar.gz", replace=True)
    names = projects()
    left = {name.split()[1] for name in names if name.startswith("left")}
    assert left == {name.split()[1] for name in names if name.startswith("right")}


@pytest.fixture
def older_schema():
    """The database as the version before made it."""
    call_command("migrate", "audit", "0001", verbosity=0)
    yield
    call_command("migrate", verbosity=0)


def test_an_upgrade_can_be_gone_back_on(state, older_schema):
    """Red when _pending finds nothing."""
    Project.objects.create(name="kept")
    made = services.back_up_before_upgrade(actor="test")
    call_command("migrate", verbosity=0)
    Project.objects.create(name="made after the upgrade")
    assert services.back_up_before_upgrade(actor="test") is None
    done = services.restore(actor="test", source=made, replace=True)
    assert ["audit", "0002_triggers"] not in done.manifest.migrations
    assert projects() == ["kept"]


def test_a_version_does_not_work_on_the_database_of_a_newer_one(state):
    """Red when back_up_before_upgrade() asks only what is missing."""
    recorder = MigrationRecorder(connections["default"])
    recorder.record_applied("accounts", "9999_newer")
    recorder.record_applied("taken_out", "9999_newer")
    try:
        with pytest.raises(UpkeepError, match="a newer version .it has accounts.9999_newer"):
            services.back_up_before_upgrade(actor="test")
    finally:
        recorder.record_unapplied("accounts", "9999_newer")
    assert services.back_up_before_upgrade(actor="test") is None
    recorder.record_unapplied("taken_out", "9999_newer")


def test_nothing_is_migrated_on_a_restore_that_was_interrupted(state, older_schema):
    """Red when the mark is not looked at: systemd and compose would start on half of a portal."""
    (state / services.UNFINISHED).touch()
    with pytest.raises(UpkeepError, match="restore was interrupted"):
        services.back_up_before_upgrade(actor="test")
    assert not list((state / "backups").glob("*.tar.gz"))


def test_only_the_newest_backups_before_upgrades_are_kept(state, older_schema):
    """Red when nothing is removed."""
    made = [services.back_up_before_upgrade(actor="test") for _ in range(services.KEPT + 2)]
    left = set((state / "backups").glob("*.tar.gz"))
    assert len(left) == services.KEPT and made[-1] in left


def test_the_commands_say_what_they_did_and_refuse_in_a_sentence(state, tmp_path, capsys):
    note("first")
    call_command("backup", str(tmp_path / "one.tar.gz"))
    assert "secrets" in capsys.readouterr().out
    with pytest.raises(Exception, match="exists already"):
        call_command("backup", str(tmp_path / "one.tar.gz"))
    call_command("restore", str(tmp_path / "one.tar.gz"), "--replace")
    assert "The audit chain holds" in capsys.readouterr().out


def test_state_files_never_follow_a_link_out_of_the_state(state, tmp_path):
    """Red when links are not left out."""
    (tmp_path / "elsewhere").write_text("not ours")
    (state / "link").symlink_to(tmp_path / "elsewhere")
    assert "state/link" not in dict(archive.state_files(state, images=True))


def test_settings_of_the_environment_are_kept_and_read_back_as_they_were(state, tmp_path, monkeypatch):
    """Red when the file is left out, or a value is written without its backslashes."""
    hostile = 'smtp "x" $HOME `id` \\ end'
    monkeypatch.setenv("EMAIL_HOST", hostile)
    monkeypatch.setenv("PUBLIC_URL", "https://portal.example.org")
    monkeypatch.setenv("EMAIL_HOST_USER", "two\nlines")
    monkeypatch.delenv("EMAIL_HOST_PASSWORD", raising=False)
    services.back_up(actor="test", target=tmp_path / "kept.tar.gz")
    (state / "settings.env").unlink(missing_ok=True)
    services.restore(actor="test", source=tmp_path / "kept.tar.gz", replace=True)
    kept = state / environment.FILE
    assert kept.stat().st_mode & 0o077 == 0 and "EMAIL_HOST_USER had several lines" in kept.read_text()
    script = '. scripts/lib/environment.sh; read_environment >/dev/null; printf %s "$EMAIL_HOST|$PUBLIC_URL"'
    own = {"PATH": "/usr/bin:/bin", "GATEHOUSE_ENVIRONMENT": str(kept)}
    root = Path(__file__).parents[2]
    done = subprocess.run(["bash", "-euc", script], cwd=root, env=own, stdout=subprocess.PIPE, check=True)
    assert done.stdout.decode() == f"{hostile}|https://portal.example.org"


def test_every_setting_that_is_documented_or_read_is_kept():
    root = Path(__file__).parents[2]
    section = (root / "docs/install.md").read_text().split("## Settings")[1].split("\n## ")[0]
    first_cells = " ".join(re.findall(r"^\| (`[^|]*) \|", section, re.M))
    named = set(re.findall(r"`(\w+)`", first_cells))
    read = {
        name
        for file in (root / "portal/settings").glob("*.py")
        for name in re.findall(r"environ(?:\.get\(|\[)\"([A-Z_]+)\"", file.read_text())
    }
    assert named and read and named | read <= set(environment.NAMES)
