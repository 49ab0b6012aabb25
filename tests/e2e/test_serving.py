"""What runs while the portal runs, as whom, and that nothing of it stays behind."""

import os
import pwd
import shutil
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.e2e.portals import (
    ROOT,
    Portal,
    Visitor,
    environment,
    interruptible,
    processes_of,
    remove_pool,
    running,
    script,
)

pytestmark = pytest.mark.live
CONNECT = """
import socket, sys
link = socket.socket(socket.AF_UNIX)
link.connect(sys.argv[1])
"""


@pytest.fixture(scope="module")
def portal(tmp_path_factory) -> Iterator[Portal]:
    """A portal whose state lies below a folder that is closed to everybody but root (pytest's own)."""
    state = tmp_path_factory.mktemp("state")
    assert state.parent.stat().st_mode & 0o077 == 0
    with running(state) as portal:
        yield portal


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _as_web(portal: Portal, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command where the web process lives and as whom it runs."""
    pid = portal.pid("web")
    who = _status(pid)
    uid, gid = who["Uid"].split()[0], who["Gid"].split()[0]
    drop = ["setpriv", "--reuid", uid, "--regid", gid, "--clear-groups", "--no-new-privs"]
    return subprocess.run(
        ["nsenter", "-t", str(pid), "-m", *drop, *command], capture_output=True, text=True, check=False
    )


def test_web_has_nothing_of_root(portal):
    """Red when the launcher leaves out --clear-groups, --no-new-privs or --bounding-set."""
    found = _status(portal.pid("web"))
    assert "0" not in found["Uid"].split() + found["Gid"].split()
    assert found["Groups"] == ""
    assert found["NoNewPrivs"] == "1"
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(found[name], 16) == 0, name


def test_web_cannot_reach_the_hypervisor(portal):
    """Red when the launcher does not cover /run/libvirt: its sockets take connections from everybody."""
    for name in ("libvirt-sock", "libvirt-sock-ro"):
        words = ["/usr/bin/python3", "-c", CONNECT, f"/run/libvirt/{name}"]
        assert subprocess.run(words, check=False).returncode == 0
        refused = _as_web(portal, *words)
        assert refused.returncode != 0
        assert "PermissionError" in refused.stderr
    assert _as_web(portal, "virsh", "-c", "qemu:///system", "list").returncode != 0


def test_web_reads_no_secret_that_is_not_its_own(portal):
    """Red when lend_state lends credentials, or the pool's folder is in sight."""
    pool = portal.env["GATEHOUSE_POOL"]
    assert _as_web(portal, "cat", f"{portal.state}/secret_key").returncode == 0
    for path in (f"{portal.state}/credentials", f"{portal.state}/log/worker.log", pool, "/etc/shadow"):
        assert os.path.exists(path)
        assert _as_web(portal, "ls" if os.path.isdir(path) else "cat", path).returncode != 0, path
    assert _as_web(portal, "touch", f"{portal.state}/credentials.new").returncode != 0
    assert _as_web(portal, "touch", f"{ROOT}/portal/new.py").returncode != 0


def test_sockets_are_open_to_the_web_group_alone(portal):
    """Red when the folder of sockets has no group bit, or the broker's socket is open to all."""
    for name in ("redis.sock", "consoles.sock"):
        path = portal.state / "run" / name
        assert path.stat().st_mode & 0o777 in {0o660, 0o770}
        assert path.stat().st_gid == pwd.getpwnam("gatehouse").pw_gid
        assert _as_web(portal, "/usr/bin/python3", "-c", CONNECT, str(path)).returncode == 0


def test_people_sign_in_and_write(portal):
    """Red when the database, the cache or the static files are not lent to the web process."""
    visitor = Visitor(portal.url)
    status, page = visitor.sign_in("admin", portal.passwords["admin"])
    assert (status, "Sign out" in page) == (200, True)
    script_path = page.split('src="/static/js/live')[1].split('"')[0]
    assert visitor.get(f"/static/js/live{script_path}")[0] == 200
    # A wrong password is counted in the cache, which is a folder.
    for _ in range(7):
        refused = Visitor(portal.url).sign_in("auditor", "wrong")
    assert "Too many failed" in refused[1]
    reset = "/accounts/password/reset/"
    assert Visitor(portal.url).post(reset, page=reset, email="somebody@example.org")[0] == 200


def test_a_state_of_an_earlier_version_is_mended(tmp_path):
    """Red when place_database moves nothing, or lend_state leaves what root made to root."""
    with running(tmp_path) as portal:
        script("stop", portal.env)
        for path in (tmp_path / "db").iterdir():
            shutil.move(path, tmp_path / path.name)
        (tmp_path / "db").rmdir()
        (tmp_path / "cache" / "old.djcache").write_bytes(b"\x80\x04N.")
        for path in [tmp_path, *tmp_path.iterdir()]:
            os.chown(path, 0, 0, follow_symlinks=False)
            if not path.is_symlink():
                path.chmod(0o700 if path.is_dir() else 0o600)
        assert "Moving the database" in script("run", portal.env, "--background")
        status, page = Visitor(portal.url).sign_in("admin", portal.passwords["admin"])
        assert (status, "Sign out" in page) == (200, True)


LEND = ". scripts/lib/common.sh; . scripts/lib/web.sh; need_web_user; lend_state"


def test_the_files_beside_the_database_are_there_before_anybody_opens_it(tmp_path):
    """Red when lend_state leaves them to SQLite: who opens it first as root makes them for root alone, for a
    moment in which the web process finds its database read-only, and it stays so.
    """
    env = environment(tmp_path)
    (tmp_path / "db").mkdir()
    path = tmp_path / "db/gatehouse.sqlite3"
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE example (number)")
    for _again in range(2):
        subprocess.run(["bash", "-euc", LEND], cwd=ROOT, env=env, check=True)
        for end in ("", "-wal", "-shm"):
            found = (tmp_path / f"db/gatehouse.sqlite3{end}").stat()
            assert (found.st_mode & 0o777, found.st_gid) == (0o660, pwd.getpwnam("gatehouse").pw_gid), end
    with closing(sqlite3.connect(path)) as database:
        database.execute("INSERT INTO example VALUES (1)")
        database.commit()
        assert database.execute("SELECT count(*) FROM example").fetchone() == (1,)


def _foreground(env: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [ROOT / "scripts" / "run"],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=interruptible,  # noqa: PLW1509 (this test starts no thread)
    )


def _read_until(run: subprocess.Popen[str], sentence: str) -> str:
    assert run.stdout is not None
    said = ""
    for line in run.stdout:
        said += line
        if sentence in line:
            return said
    raise AssertionError(f"it ended without saying {sentence!r}: {said}")


@pytest.mark.parametrize("moment", ["Migrating the database", "Starting web", "Ctrl-C stops it"])
def test_ctrl_c_leaves_nothing_at_any_moment(tmp_path, moment):
    """Red when the trap is set only at the end, as it was, or a part is not noted before it starts.

    And when what an interrupted run left half done keeps the next one from starting.
    """
    env = environment(tmp_path)
    try:
        run = _foreground(env)
        _read_until(run, moment)
        time.sleep(0.3)
        run.send_signal(signal.SIGINT)
        rest, _ = run.communicate(timeout=90)
        assert run.returncode == 130, rest
        assert processes_of(tmp_path) == []
        said = script("run", env, "--background")
        assert f"Their passwords: {tmp_path}/credentials" in said
        assert Visitor(f"http://127.0.0.1:{env['PORT']}").get("/healthz/ready")[0] == 200
    finally:
        script("stop", env)
        remove_pool(env["GATEHOUSE_POOL"])


def test_a_port_that_is_taken_is_said_before_anything_starts(tmp_path):
    """Red when need_free_port does not try to listen."""
    env = environment(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(env["PORT"])))
        taken.listen()
        done = subprocess.run([ROOT / "scripts/run", "--background"], env=env, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"Port {env['PORT']} of 127.0.0.1 is taken" in done.stdout + done.stderr
    assert processes_of(tmp_path) == []


def test_a_second_run_starts_nothing_and_says_where_the_first_one_is(portal):
    """Red when a second run ends the first one's parts with its own."""
    before = {part: portal.pid(part) for part in ("web", "worker", "redis")}
    assert portal.url in script("run", portal.env, "--background")
    other = {**portal.env, "PORT": "1"}
    done = subprocess.run([ROOT / "scripts/run", "--background"], env=other, capture_output=True, text=True)
    assert done.returncode == 1 and f"runs already at {portal.url}" in done.stdout
    assert {part: portal.pid(part) for part in before} == before
    assert Visitor(portal.url).get("/healthz/ready")[0] == 200
