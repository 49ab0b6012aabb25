"""SSH public keys as people paste them: ssh-keygen's own are read, damaged and unsafe ones are refused."""

import base64
import struct
import subprocess

import pytest

from portal.core import public_keys
from portal.core.public_keys import BadKey, read

ED25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIO3pRSmoEbnApkTfXeqmr+G9jgvKZmVNfC69Nf1c60Rk"


def made(tmp_path, *options):
    """Return (public line, private text, fingerprint) as ssh-keygen makes and prints them."""
    path = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-N", "", "-C", "ada@desk", "-f", path, *options], check=True)
    told = subprocess.run(["ssh-keygen", "-l", "-f", path], check=True, capture_output=True, text=True)
    return path.with_suffix(".pub").read_text(), path.read_text(), told.stdout.split()[1]


def wire(*parts):
    return base64.b64encode(b"".join(struct.pack(">I", len(part)) + part for part in parts)).decode()


@pytest.mark.parametrize(
    "options",
    [
        ("-t", "ed25519"),
        ("-t", "rsa", "-b", "2048"),
        ("-t", "ecdsa", "-b", "256"),
        ("-t", "ecdsa", "-b", "521"),
    ],
)
def test_what_ssh_keygen_makes_is_read_and_has_its_fingerprint(tmp_path, options):
    public, _private, told = made(tmp_path, *options)
    key = read(public)
    assert (key.line, key.comment, key.fingerprint) == (public.strip(), "ada@desk", told)


def test_a_key_on_a_token_is_read():
    blob = wire(b"sk-ssh-ed25519@openssh.com", bytes(32), b"ssh:")
    assert read(f"sk-ssh-ed25519@openssh.com {blob}").comment == ""


def test_a_private_key_is_told_as_one(tmp_path):
    with pytest.raises(BadKey, match="private key"):
        read(made(tmp_path, "-t", "ed25519")[1])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("ssh-dss AAAAB3NzaC1kc3MAAACBAP", "DSA"),
        ("hello", "begins with its kind"),
        ('command="ls" ' + ED25519, "begins with its kind"),
        ("ssh-ed25519", "damaged"),
        (ED25519[:-1], "damaged"),
        (ED25519[:-4], "damaged"),
        (ED25519 + "AAAA", "damaged"),
        (ED25519.replace("Njb", "N\tb").replace("AAAAC3", "AAAAC*"), "damaged"),
        (ED25519.replace("ssh-ed25519", "ssh-rsa"), "another kind"),
        (f"{ED25519} one\n{ED25519} two", "more than one line"),
        (f'{ED25519} a"b', "quote"),
        (f"{ED25519} a\x00b", "no key has"),
        ("ssh-rsa " + "A" * 9000, "too long"),
        ("ssh-ed25519 " + wire(b"ssh-ed25519", bytes(31)), "damaged"),
        ("sk-ssh-ed25519@openssh.com " + wire(b"sk-ssh-ed25519@openssh.com", bytes(32)), "damaged"),
        ("ssh-rsa " + wire(b"ssh-rsa", b"\1\0\1", b"\0" + b"\xff" * 128), "shorter than 2048"),
        ("ecdsa-sha2-nistp256 " + wire(b"ecdsa-sha2-nistp256", b"nistp256", b"\4" + b"\1" * 64), "damaged"),
    ],
)
def test_what_is_no_safe_whole_key_is_refused_with_the_reason(line, said):
    """Red when `_check` does not look at the fields: nothing else reads the key of a token."""
    with pytest.raises(BadKey, match=said):
        read(line)


def test_two_lines_of_one_key_are_told_by_all_but_the_comment():
    assert public_keys.same(f"{ED25519} here") == public_keys.same(f"{ED25519} there at home") == ED25519
