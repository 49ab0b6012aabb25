"""`manage.py inspect_domain`, `inspect_network`, `inspect_volume`."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests/data/foreign"


@pytest.mark.parametrize("kind", ["domain", "network", "volume"])
def test_a_definition_is_told_as_json(kind):
    """Red when a command reads the table of another kind."""
    out = io.StringIO()
    call_command(f"inspect_{kind}", str(DATA / f"{kind}.xml"), stdout=out)
    told = json.loads(out.getvalue())
    assert told["kind"] == kind and told["understood"]["name"] and told["kept"]


@pytest.mark.slow
def test_it_ends_with_0_and_prints_nothing_that_a_terminal_obeys(tmp_path):
    """Red when the JSON is not in ASCII: a definition may hold control characters of the terminal."""
    file = tmp_path / "hostile.xml"
    hostile = "<domain><name>a</name><title>\x9b31m\u202e red</title><\u00e9/></domain>"
    file.write_text(hostile, encoding="utf-8")
    command = [sys.executable, ROOT / "manage.py", "inspect_domain"]
    done = subprocess.run([*command, file], capture_output=True, check=False)
    assert done.returncode == 0 and done.stdout.isascii()
    assert json.loads(done.stdout)["understood"]["title"] == "\x9b31m\u202e red"
    piped = subprocess.run([*command, "-"], input=file.read_bytes(), capture_output=True, check=False)
    assert piped.stdout == done.stdout
    refused = subprocess.run([*command, "/dev/null"], capture_output=True, check=False)
    assert refused.returncode == 1 and b"/dev/null: this is no well-formed XML" in refused.stderr
    assert b"Traceback" not in refused.stderr
    # What is wrong with a definition may quote it.
    file.write_text("<domain></\u00e9>", encoding="utf-8")
    refused = subprocess.run([*command, file], capture_output=True, check=False)
    assert refused.returncode == 1 and b"\\xe9" in refused.stderr and refused.stderr.isascii()


@pytest.mark.parametrize(("name", "why"), [("absent.xml", "No such file"), ("", "Is a directory")])
def test_a_file_that_cannot_be_read_is_said(tmp_path, name, why):
    with pytest.raises(CommandError, match=why):
        call_command("inspect_domain", str(tmp_path / name))
