"""Where an image's packages come from, on Debian and elsewhere."""

import os
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
MIRROR = "http://mirror.test/debian"
DEBIAN = f"""Types: deb
URIs: {MIRROR}
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""
UBUNTU = """Types: deb
URIs: http://ubuntu.test/ubuntu
Suites: noble noble-updates
Components: main universe
Signed-By: /usr/share/keyrings/ubuntu-archive-keyring.gpg
"""
VENDOR = DEBIAN.replace("mirror.test", "vendor.test").replace("debian-archive", "vendor")


@pytest.fixture
def sources(tmp_path):
    """Return what `apt_sources` finds in an /etc/apt of these files: its exit code and all it wrote."""

    def look(files, **environment):
        etc, out = tmp_path / "apt", tmp_path / "out"
        (etc / "sources.list.d").mkdir(parents=True)
        for name, text in files.items():
            (etc / name).write_text(text)
        script = f'. {SCRIPTS}/lib/common.sh; . {SCRIPTS}/images/lib.sh; apt_sources "$1"; '
        script += 'cat "${SOURCES[@]}" </dev/null'
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script, "bash", out],
            env={"PATH": os.environ["PATH"], "GATEHOUSE_APT_ETC": str(etc), **environment},
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stdout + done.stderr

    return look


def test_debian_uses_its_own_sources_and_no_others(sources):
    """Red when another vendor's source gets into the image, or another suite's."""
    code, text = sources(
        {
            "sources.list.d/debian.sources": f"{DEBIAN}\n{VENDOR}",
            "sources.list": "deb http://old.test/debian bullseye main\n"
            "deb http://list.test/debian bookworm main\n",
        },
        GATEHOUSE_DEBIAN_MIRROR="http://unasked.test/debian",
    )
    assert code == 0 and MIRROR in text and "list.test" in text
    assert not any(name in text for name in ("vendor.test", "old.test", "unasked.test"))


def test_elsewhere_mmdebstrap_takes_debians_mirror(sources):
    """Red when Ubuntu needs anything to be set, or its own packages get into the image."""
    assert sources({"sources.list.d/ubuntu.sources": UBUNTU}) == (0, "")


def test_elsewhere_a_mirror_can_be_named(sources):
    code, text = sources({"sources.list.d/ubuntu.sources": UBUNTU}, GATEHOUSE_DEBIAN_MIRROR=MIRROR)
    assert code == 0
    assert text == f"deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {MIRROR} bookworm main\n"


@pytest.mark.parametrize("where", ["source", "mirror"])
def test_a_password_never_gets_into_an_image(sources, where):
    secret = MIRROR.replace("//", "//me:secret@")
    given = {"sources.list.d/debian.sources": DEBIAN.replace(MIRROR, secret)} if where == "source" else {}
    code, text = sources(given, **({} if given else {"GATEHOUSE_DEBIAN_MIRROR": secret}))
    assert code == 1 and "hold a password" in text and "secret" not in text
