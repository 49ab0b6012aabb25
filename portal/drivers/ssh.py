"""Reach a host by SSH: its key, and the files that make libvirt's and our own ssh trust nothing else.

Not for: libvirt itself, or whether somebody confirmed the key. OpenSSH gets a configuration of its own, so
that no file of the account that the portal runs under has a say.
"""

import base64
import hashlib
import os
import re
import shutil
import struct
import subprocess
import tempfile
from binascii import Error as NotBase64
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

from portal.drivers import errors

#: Kinds of host key, the best first, and the signatures that each may make (old ones sign with SHA-1).
KEY_KINDS = {
    "ssh-ed25519": "ssh-ed25519",
    "ecdsa-sha2-nistp256": "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384": "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521": "ecdsa-sha2-nistp521",
    "ssh-rsa": "rsa-sha2-512,rsa-sha2-256",
}
CONNECT_SECONDS = 5
_LONGEST_KEY = 2048  # characters; an RSA key of 8192 bits has 1400
_ALIAS = "gatehouse"
#: What OpenSSH and libvirt's helper on the host say -> what it means. The first that fits counts.
_MEANINGS: tuple[tuple[str, type[errors.DriverError]], ...] = (
    (r"Host key verification failed|no matching host key type", errors.HostKeyChanged),
    (r"Permission denied \(|Too many authentication failures", errors.KeyRefused),
    (r"Could not resolve hostname", errors.NameUnknown),
    (r"libvirt-sock'?: Permission denied|access denied|authentication unavailable", errors.LibvirtRefused),
    (r"libvirt-sock'?: (No such file|Connection refused)", errors.LibvirtAbsent),
    (r"(nc|netcat|virt-ssh-helper)'?: (command )?not found", errors.LibvirtAbsent),
)


@dataclass(frozen=True, slots=True)
class SshAddress:
    """Whom to reach where."""

    user: str
    host: str
    port: int = 22

    @classmethod
    def of(cls, uri: str) -> "SshAddress | None":
        """Return the address in a libvirt URI, None when it is not reached by SSH."""
        parts = urlsplit(uri)
        if parts.scheme.partition("+")[2] != "ssh" or not parts.hostname:
            return None
        return cls(parts.username or "root", parts.hostname, parts.port or 22)


def check_key(line: str) -> str:
    """Return a public key as `kind base64` without its comment. Raises ValueError for anything else."""
    kind, blob = (line.split() + ["", ""])[:2]
    if kind not in KEY_KINDS or len(blob) > _LONGEST_KEY:
        raise ValueError("no key of a kind that is accepted")
    try:
        raw = base64.b64decode(blob, validate=True)
        (length,) = struct.unpack(">I", raw[:4])
    except (NotBase64, struct.error) as error:
        raise ValueError("the key is garbled") from error
    if raw[4 : 4 + length] != kind.encode():
        raise ValueError("the key says it is of another kind")
    return f"{kind} {blob}"


def fingerprint(key: str) -> str:
    """Return a public key's SHA-256 fingerprint as `ssh-keygen -l` prints it."""
    digest = hashlib.sha256(base64.b64decode(key.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def meaning(raw: str) -> type[errors.DriverError] | None:
    """Return what the text of a failed connection means, None when it says nothing particular."""
    return next((kind for pattern, kind in _MEANINGS if re.search(pattern, raw)), None)


def fetch_host_key(address: SshAddress, *, seconds: float = 15.0) -> str:
    """Ask the host for its key without signing in; the best kind that it has.

    Nothing proves that the key is the host's. Raises NameUnknown, HostUnreachable (no SSH server answers),
    CallTimeout after `seconds`.
    """
    command = ["ssh-keyscan", "-T", str(CONNECT_SECONDS), "-p", str(address.port), "-t", "ed25519,ecdsa,rsa"]
    try:
        done = subprocess.run(  # noqa: S603 (a list, no shell; a host's name never begins with a dash)
            [*command, "--", address.host],
            capture_output=True, text=True, errors="replace", timeout=seconds, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise errors.CallTimeout(f"ssh-keyscan did not end in {seconds:g} s") from error
    found = sorted(_scanned(done.stdout), key=lambda key: list(KEY_KINDS).index(key.split()[0]))
    if found:
        return found[0]
    said = done.stderr.strip()[-500:]
    if re.search(r"Name or service not known|No address associated|Temporary failure in name", said):
        raise errors.NameUnknown(said)
    raise errors.HostUnreachable(said or "no SSH server answered", retryable=False)


def _scanned(text: str) -> Iterator[str]:
    for line in text.splitlines():
        if not line.startswith("#"):
            with suppress(ValueError):
                yield check_key(line.partition(" ")[2])


_CONFIG = """\
Host *
  IdentityFile ./key
  IdentitiesOnly yes
  IdentityAgent none
  PreferredAuthentications publickey
  BatchMode yes
  HostKeyAlias {alias}
  HostKeyAlgorithms {algorithms}
  UserKnownHostsFile ./known_hosts
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
  UpdateHostKeys no
  VerifyHostKeyDNS no
  CanonicalizeHostname no
  ConnectTimeout {connect}
  ServerAliveInterval 2
  ServerAliveCountMax 3
  ControlMaster no
  ControlPath none
  ForwardAgent no
  ForwardX11 no
  LogLevel ERROR
"""
# In the folder, so that ssh's words about a changed key are short: libvirt takes 1024 bytes and drops more.
_WRAPPER = """\
#!/bin/sh
cd '{folder}' && exec ssh -F config "$@"
"""


def prepare(base: Path, name: str, uri: str, private_key: str, host_key: str) -> str:
    """Write what connections to one host need into `base`, readable by this account alone.

    Returns the URI to connect by. Idempotent and safe for many processes; another key or host key makes
    another folder, and those that `name` had before are removed.
    """
    check_key(host_key)
    told = "\0".join((uri, private_key, host_key, _CONFIG))
    folder = base / f"{name}-{hashlib.sha256(told.encode()).hexdigest()[:16]}"
    if not (folder / "ssh").exists():
        if "'" in str(folder):
            raise ValueError(f"{folder} cannot be named in a shell script")
        base.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Of its own for each caller (mode 700): threads of one worker come here at the same moment.
        staged = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=base))
        config = _CONFIG.format(
            alias=_ALIAS, connect=CONNECT_SECONDS, algorithms=KEY_KINDS[host_key.split()[0]]
        )  # fmt: skip
        _write(staged / "key", private_key, 0o600)
        _write(staged / "known_hosts", f"{_ALIAS} {host_key}\n", 0o600)
        _write(staged / "config", config, 0o600)
        _write(staged / "ssh", _WRAPPER.format(folder=folder), 0o700)
        try:
            staged.rename(folder)
        except OSError:
            shutil.rmtree(staged)  # another process was first with the same
    for other in base.glob(f"{name}-*"):
        if other != folder and "." not in other.name:
            shutil.rmtree(other, ignore_errors=True)
    return f"{uri}?no_tty=1&command={quote(str(folder / 'ssh'), safe='/')}"


def forget(base: Path, name: str) -> None:
    """Remove what `prepare` wrote for one host. Idempotent."""
    for folder in base.glob(f"{name}-*"):
        shutil.rmtree(folder, ignore_errors=True)


def _write(path: Path, text: str, mode: int) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as handle:
        handle.write(text)


def sftp(uri: str, orders: str, seconds: float) -> str:
    """Carry out `orders`, a line each, by the portal's own SSH, and return what sftp wrote.

    Raises NotSupported, OSError and SubprocessError, also where the host offers no SFTP.
    """
    program, _target, _folder = command(uri)
    address = SshAddress.of(uri)
    assert address is not None  # noqa: S101 (command() looked)
    where = ["-P", str(address.port), "-b", "-", f"{address.user}@{address.host}"]
    return subprocess.run(  # noqa: S603 (a list, no shell)
        ["sftp", "-q", "-S", *program, *where],  # noqa: S607
        input=orders, text=True, errors="replace", capture_output=True, timeout=seconds, check=True,
    ).stdout  # fmt: skip


def command(uri: str) -> tuple[list[str], list[str], Path]:
    """Return how to run ssh for a URI of `prepare`: program, target, and the folder of its files."""
    address = SshAddress.of(uri)
    program = parse_qs(urlsplit(uri).query).get("command", [""])[0]
    if address is None or not program:
        raise errors.NotSupported("this host is not reached by the portal's own SSH")
    target = ["-p", str(address.port), "-l", address.user, "--", address.host]
    return [program], target, Path(program).parent
