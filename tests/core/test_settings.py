"""What the environment says, as the settings take it."""

import json
import os
import subprocess
import sys

import pytest
from django.conf import settings


@pytest.fixture
def told(tmp_path):
    """Ask a process of its own, with the environment given, for settings."""

    def told(*names, **environment):
        source = f"import json, portal.settings as s; print(json.dumps([getattr(s, n) for n in {names!r}]))"
        inherited = {name: value for name, value in os.environ.items() if name not in environment}
        said = subprocess.run(
            [sys.executable, "-c", source],
            cwd=settings.BASE_DIR,
            env=inherited | {"GATEHOUSE_STATE": str(tmp_path)} | environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return json.loads(said.stdout)

    return told


def test_lists_may_have_blanks_behind_their_commas(told):
    """Red when ALLOWED_HOSTS is split without more: every name but the first was refused with 400."""
    names, origins = told(
        "ALLOWED_HOSTS",
        "CSRF_TRUSTED_ORIGINS",
        ALLOWED_HOSTS="a.example.org, b.example.org ,",
        TRUSTED_ORIGINS="https://a.example.org, https://b.example.org",
    )
    assert names == ["a.example.org", "b.example.org"]
    assert origins == ["https://a.example.org", "https://b.example.org"]


def test_an_empty_list_of_names_is_this_machine(told):
    """Red when an empty variable counts as names: the portal would refuse every browser."""
    assert told("ALLOWED_HOSTS", ALLOWED_HOSTS="") == [["127.0.0.1", "localhost"]]
