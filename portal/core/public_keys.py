"""Read SSH public keys as people paste them. Not for: hosts' keys (`portal.drivers.ssh`), nor keeping any."""

import base64
import hashlib
import struct
from binascii import Error as NotBase64
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from django.utils.translation import gettext as _

#: Characters of a line; an RSA key of 16384 bits has 2800.
LONGEST = 8192
#: What OpenSSH 9 takes at least from a key of the RSA kind (RequiredRSASize), and what people should have.
LEAST_RSA_BITS = 2048
_POINTS = {"nistp256": 65, "nistp384": 97, "nistp521": 133}


class BadKey(ValueError):
    """A line that is no public key; the text is a sentence for the person."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """One key: its kind and base64 as OpenSSH writes them, and the comment after them."""

    kind: str
    blob: str
    comment: str

    @property
    def line(self) -> str:
        """The key as a line of authorized_keys."""
        return f"{self.kind} {self.blob} {self.comment}".rstrip()

    @property
    def fingerprint(self) -> str:
        """What `ssh-keygen -l` prints."""
        digest = hashlib.sha256(base64.b64decode(self.blob)).digest()
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def read(text: str) -> PublicKey:
    """Return the one key in `text`, without options before it.

    Raises BadKey for anything that OpenSSH would not take, and for what is not safe.
    """
    line = text.strip()
    if "PRIVATE KEY" in line:
        raise BadKey(_("This is a private key. Keep it secret and paste the .pub file instead."))
    if "\n" in line or "\r" in line:
        raise BadKey(_("This is more than one line. Paste one key at a time, without line breaks."))
    if len(line) > LONGEST or not line.isprintable():
        raise BadKey(_("This is no SSH public key: it is too long or holds characters that no key has."))
    kind, blob, comment = (*line.split(None, 2), "", "", "")[:3]
    if kind == "ssh-dss":
        raise BadKey(_("DSA keys are not safe, and OpenSSH refuses them. Make one by ssh-keygen -t ed25519."))
    if kind not in _FIELDS:
        raise BadKey(
            _("A public key begins with its kind, such as ssh-ed25519. Paste the content of the .pub file.")
        )
    if any(letter in comment for letter in '"\\'):
        raise BadKey(_("The comment behind the key holds a quote or a backslash; leave it out."))
    _check(kind, blob)
    return PublicKey(kind, blob, comment[:200])


def same(line: str) -> str:
    """Return what two lines of one key have in common: all but the comment."""
    return " ".join(line.split()[:2])


def each_once(lines: Iterable[str]) -> list[str]:
    """Return the lines of keys without those of a key that an earlier line has."""
    found: dict[str, str] = {}
    for line in lines:
        found.setdefault(same(line), line)
    return list(found.values())


def _check(kind: str, blob: str) -> None:
    """Raise BadKey unless `blob` is a whole key of that kind, and nothing more."""
    try:
        parts = _parts(base64.b64decode(blob, validate=True))
    except (NotBase64, ValueError, struct.error) as error:
        raise BadKey(_("The key is damaged: a part of it is missing or changed. Copy it again.")) from error
    if parts and parts[0] != kind.encode():
        raise BadKey(_("The key is of another kind inside than it says in front. Copy it again."))
    if not _FIELDS[kind](parts[1:]):
        raise BadKey(_("The key is damaged: a part of it is missing or changed. Copy it again."))
    if kind == "ssh-rsa" and int.from_bytes(parts[2]).bit_length() < LEAST_RSA_BITS:
        raise BadKey(
            _("This RSA key is shorter than %(least)d bits, which is not safe any more.")
            % {"least": LEAST_RSA_BITS}
        )
    if kind.startswith("sk-"):
        return  # what cryptography does not read
    try:
        load_ssh_public_key(f"{kind} {blob}".encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadKey(_("The key is damaged: a part of it is missing or changed. Copy it again.")) from error


def _parts(raw: bytes) -> list[bytes]:
    """Return the strings of a key's wire form (RFC 4253, 6.6). Raises ValueError, struct.error."""
    parts = []
    while raw:
        (length,) = struct.unpack(">I", raw[:4])
        if len(raw) < 4 + length:
            raise ValueError("the key ends too early")
        parts.append(raw[4 : 4 + length])
        raw = raw[4 + length :]
    return parts


def _ed25519(parts: list[bytes]) -> bool:
    return [len(part) for part in parts] == [32]


def _rsa(parts: list[bytes]) -> bool:
    return len(parts) == 2


def _ecdsa(curve: str) -> Callable[[list[bytes]], bool]:
    def fits(parts: list[bytes]) -> bool:
        return len(parts) == 2 and parts[0] == curve.encode() and len(parts[1]) == _POINTS[curve]

    return fits


def _on_token(fits: Callable[[list[bytes]], bool]) -> Callable[[list[bytes]], bool]:
    """Return the check of a key that lies on a token: as `fits` with the name of its application behind."""

    def with_application(parts: list[bytes]) -> bool:
        return len(parts) > 1 and fits(parts[:-1]) and parts[-1].startswith(b"ssh:")

    return with_application


_FIELDS: dict[str, Callable[[list[bytes]], bool]] = {
    "ssh-ed25519": _ed25519,
    "ssh-rsa": _rsa,
    **{f"ecdsa-sha2-{curve}": _ecdsa(curve) for curve in _POINTS},
    "sk-ssh-ed25519@openssh.com": _on_token(_ed25519),
    "sk-ecdsa-sha2-nistp256@openssh.com": _on_token(_ecdsa("nistp256")),
}
