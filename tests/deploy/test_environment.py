"""scripts/backup and scripts/restore read the settings that systemd gives a portal, and run none."""

import re
import subprocess

import pytest

from tests.e2e.portals import ROOT

NAMES = ("DATABASE_URL", "SECRET_KEY", "PUBLIC_URL", "BIND", "CACHE_URL")


def _read(tmp_path, text, **own):
    file = tmp_path / "environment"
    file.write_text(text)
    shown = " ".join(f'"[${{{name}-}}]"' for name in NAMES)
    script = f'. scripts/lib/environment.sh; read_environment; printf "%s\\n" {shown}'
    environment = {"PATH": "/usr/bin:/bin", "GATEHOUSE_ENVIRONMENT": str(file), **own}
    return subprocess.run(
        ["bash", "-euc", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def test_values_are_what_systemd_makes_of_them(tmp_path):
    """Red when the file is sourced, quotes stay, or the file wins over the environment."""
    trap = tmp_path / "ran"
    text = f"""# a comment
; another
  DATABASE_URL = "postgresql://u:p\\"\\$x#y@h/n"
SECRET_KEY='it\\s $HOME'
PUBLIC_URL=$(touch {trap})`touch {trap}`
BIND=0.0.0.0
CACHE_URL="""
    done = _read(tmp_path, text, BIND="::1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1:] == [
        '[postgresql://u:p"$x#y@h/n]',
        "[it\\s $HOME]",
        f"[$(touch {trap})`touch {trap}`]",
        "[::1]",
        "[]",
    ]
    assert not trap.exists()


@pytest.mark.parametrize(("text", "said"), [("BIND='x", "quote is not closed"), ("rm -r x", "no NAME=VALUE")])
def test_what_cannot_be_understood_stops(tmp_path, text, said):
    """Red when read_environment goes on after such a line."""
    done = _read(tmp_path, text)
    assert done.returncode == 1 and said in done.stderr


def test_another_state_is_another_portal(tmp_path):
    """Red when the state is not looked at: a backup of one portal would hold the database of another."""
    script = ". scripts/lib/environment.sh; trap 'echo ended $?' EXIT; read_environment; echo went on"
    environment = {"PATH": "/usr/bin:/bin", "GATEHOUSE_STATE": str(tmp_path)}
    traced = subprocess.run(
        ["bash", "-euxc", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert "went on" in traced.stdout and "/etc/gatehouse" not in traced.stderr


@pytest.mark.parametrize("name", ["backup", "restore"])
def test_both_scripts_read_it_before_the_state_is_placed(name):
    """Red when the call is taken out or comes after common.sh, which settles the folder of the state."""
    text = (ROOT / "scripts" / name).read_text()
    assert re.search(r"^read_environment$.*lib/common\.sh", text, re.M | re.S)
