"""Answers for installers: templates that cannot be used are refused, values are values alone."""

import subprocess
from io import BytesIO

import pycdlib
import pytest
import yaml

from portal.core import cpio
from portal.drivers.seed import build_iso
from portal.drivers.types import SeedSpec
from vms import unattended
from vms.unattended import Format, Refused, render
from vms.unattended_examples import EXAMPLES

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIO3pRSmoEbnApkTfXeqmr+G9jgvKZmVNfC69Nf1c60Rk"
VALUES = {"hostname": "web-1", "user": "ada", "keys": [f"{KEY} $(reboot) '#"], "disk": "vda"}


@pytest.mark.parametrize(("name", "form", "text"), EXAMPLES)
def test_what_a_new_portal_begins_with_can_be_used(name, form, text):
    unattended.check(form, text)
    rendered = render(form, text, **VALUES)
    assert "web-1" in rendered and "reboot)" not in rendered
    # A name that was not filled in would stand there with its dollar.
    assert "$" not in rendered


@pytest.mark.parametrize(("name", "form", "text"), EXAMPLES)
def test_who_signs_in_can_become_root_without_a_password(name, form, text):
    """Red when sudo asks for a password, which nobody has: the machine could not be kept."""
    assert "ada ALL=(ALL) NOPASSWD:ALL' > " in render(form, text, **VALUES)


def test_keys_stand_in_each_format_as_its_installer_reads_them():
    """Red when a comment, which is free text, comes along."""
    assert render(Format.KICKSTART, "$ssh_keys", **VALUES) == f'sshkey --username=ada "{KEY}"'
    assert yaml.safe_load(render(Format.AUTOINSTALL, "$ssh_keys", **VALUES)) == [KEY]


@pytest.mark.parametrize(
    "changes",
    [
        {"hostname": "web\nd-i"},
        {"hostname": "web;reboot"},
        {"user": "ada'"},
        {"user": "Ada B"},
        {"disk": "vda --x"},
        {"keys": ['ssh-ed25519 "']},
    ],
)
def test_a_value_that_is_more_than_a_value_is_refused(changes):
    """Red when a value is put in unchecked, whoever checked it before."""
    with pytest.raises(ValueError, match="cannot be put"):
        render(Format.PRESEED, "$hostname $user $disk", **VALUES | changes)


@pytest.mark.parametrize(
    ("form", "text", "said"),
    [
        (Format.PRESEED, "$nobody", "Nothing is called nobody"),
        (Format.PRESEED, "5 $ a", "write \\$\\$ for a dollar"),
        (Format.PRESEED, "x" * 40_000, "limited to 32 KiB"),
        (Format.AUTOINSTALL, "#cloud-config\na: [", "not valid YAML"),
        (Format.AUTOINSTALL, "#cloud-config\na: !!timestamp soon", "not valid YAML"),
        (Format.AUTOINSTALL, "autoinstall: {}", "begins with the line"),
        (Format.AUTOINSTALL, "#cloud-config\nother: {}", "mapping called autoinstall"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused_with_the_reason(form, text, said):
    """Red when cloud.NO_YAML lacks an error of PyYAML's: the page would not answer."""
    with pytest.raises(Refused, match=said):
        unattended.check(form, text)


def test_a_dollar_of_the_template_stays_one():
    assert render(Format.PRESEED, "$$HOME $user", **VALUES) == "$HOME ada"


@pytest.mark.parametrize("after", [0, 1, 2, 3])
def test_an_archive_behind_others_is_what_cpio_unpacks(tmp_path, after):
    """Red when a part is not filled up to four bytes: the kernel stops reading there."""
    files = {"preseed.cfg": b"d-i x", "authorized_keys": b"", "odd": b"abc\0"}
    archive = cpio.archive(files, after=after)
    assert (len(archive) + after) % 4 == 0
    subprocess.run(
        ["cpio", "-i", "--quiet"], input=archive[-after % 4 :], cwd=tmp_path, check=True, capture_output=True
    )
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files


def test_a_kickstart_lies_alone_on_the_cd_that_anaconda_looks_for():
    """Red when the CD is labelled for cloud-init."""
    iso = pycdlib.PyCdlib()
    iso.open_fp(BytesIO(build_iso(SeedSpec("p", "a-seed.iso", "", "", kickstart="text\n"))))
    assert iso.pvd.volume_identifier.strip() == b"OEMDRV"
    content = BytesIO()
    iso.get_file_from_iso_fp(content, joliet_path="/ks.cfg")
    assert content.getvalue() == b"text\n"
    assert [child.file_identifier() for child in iso.list_children(joliet_path="/")][2:] == [
        "ks.cfg".encode("utf-16-be")
    ]
