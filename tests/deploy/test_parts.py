"""The parts of a portal that scripts/run starts: one that ends is told, by whom and with what it said."""

import subprocess

import pytest

from tests.e2e.portals import ROOT, environment, processes_of, remove_pool, script

TELL = """
. scripts/lib/common.sh; . scripts/lib/services.sh
mkdir -p "$RUN" "$LOG"
trap 'for part in "${STARTED[@]}"; do stop $part; done' EXIT
start web sleep 60
start watcher bash -c 'echo first; echo "no such host"; exit 3'
ended() { ! kill -0 "$(cat "$RUN/watcher.pid")" 2>/dev/null; }
for _ in $(seq 100); do is_up web && ended && break; sleep 0.05; done
tell_fallen || echo "it failed"
tell_fallen && echo "once"
"""


def test_a_part_that_ended_is_told_once_with_what_it_said(tmp_path):
    """Red when tell_fallen keeps the file of the process, or looks whether the file is there alone."""
    env = environment(tmp_path)
    done = subprocess.run(["bash", "-euc", TELL], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.stdout.splitlines() == [
        f"The part watcher of the portal ended by itself. The end of {tmp_path}/log/watcher.log:",
        "first",
        "no such host",
        "it failed",
        "once",
    ], done.stderr
    assert processes_of(tmp_path) == []


SLOW = """
. scripts/lib/common.sh; . scripts/lib/services.sh
mkdir -p "$RUN" "$LOG"
trap 'for part in "${STARTED[@]}"; do stop $part; done' EXIT
ls() { sleep 0.4; command ls "$@"; }  # which the copy of this script calls before it becomes the part
start web sleep 60
tell_fallen && echo "not fallen"
"""
STOPPED = """
. scripts/lib/common.sh; . scripts/lib/services.sh
mkdir -p "$RUN" "$LOG"
start web bash -c 'trap "sleep 0.3; exit" TERM; while :; do sleep 0.05; done'
(stop web) &
while [ -e "$RUN/web.pid" ]; do tell_fallen || echo "told"; done
wait
"""


@pytest.mark.slow
@pytest.mark.parametrize(("script", "said"), [(SLOW, "not fallen\n"), (STOPPED, "")])
def test_a_part_that_starts_slowly_or_is_stopped_has_not_ended_by_itself(tmp_path, script, said):
    """Red when start() does not wait until the part is known, or stop() leaves no note."""
    done = subprocess.run(
        ["bash", "-euc", script], cwd=ROOT, env=environment(tmp_path), capture_output=True, text=True
    )
    assert done.stdout == said, done.stderr
    assert processes_of(tmp_path) == []


@pytest.mark.live
def test_a_part_that_cannot_start_is_told_and_nothing_stays(tmp_path):
    """Red when wait_until_ready asks the web process alone: the portal would run without consoles."""
    env = environment(tmp_path)
    (tmp_path / "run/consoles.sock").mkdir(parents=True)
    try:
        said = script("run", env, "--background", refused=True)
        assert "The part consoles of the portal ended by itself" in said
        assert "Gatehouse answers" not in said and processes_of(tmp_path) == []
    finally:
        script("stop", env)
        remove_pool(env["GATEHOUSE_POOL"])


MOUNTS = """
. scripts/lib/common.sh; . scripts/lib/services.sh; . scripts/lib/web.sh
PORT=8000 WEB_UID=1 WEB_GID=1
unshare() { return 1; }
web_command true
"""


def test_a_machine_without_mount_namespaces_says_so_where_people_look(tmp_path):
    """Red when web_command does not try: the sentence would stand in a log, or nowhere."""
    env = environment(tmp_path)
    done = subprocess.run(["bash", "-euc", MOUNTS], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.stdout.startswith("This machine gives no mount namespaces"), done.stderr


LACKING = """
. scripts/lib/common.sh; . scripts/lib/libvirt.sh
command() { [ "$2" = virsh ]; }  # nothing else is installed
HOST=()
session_host
echo "host: ${HOST[*]:-none}"
"""


def test_a_machine_that_lacks_libvirt_says_so_and_is_no_host(tmp_path):
    """Red when session_host enrols a machine on which nothing could run."""
    env = environment(tmp_path)
    done = subprocess.run(["bash", "-euc", LACKING], cwd=ROOT, env=env, capture_output=True, text=True)
    sentence, host = done.stdout.splitlines()
    lacks = "libvirtd qemu-system-x86_64 qemu-img is missing"
    assert sentence.startswith(f"This machine builds no machines, because {lacks}; root installs")
    assert host == "host: none"
