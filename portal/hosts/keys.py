"""The portal's SSH key: made once, its private half encrypted at rest. Not for: hosts' keys."""

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.db import transaction

from portal.audit import services as audit
from portal.core.encryption import Sealed
from portal.hosts.models import SshKey

#: No terminal, no agent, no X11: libvirt's connection, and forwarding to the screens of machines.
OPTIONS = "restrict,port-forwarding"


def ensure_key(actor: object) -> SshKey:
    """Return the portal's key, making it the first time. Racing callers agree on one.

    Reads and makes the file of encryption keys: for workers and commands, not for the web.
    """
    key = current_key()
    if key is not None:
        return key
    made = Ed25519PrivateKey.generate()
    private = made.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    ).decode()
    public = made.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    ).decode()
    with transaction.atomic():
        # One row for ever: the primary key is what racing makers agree on.
        key, created = SshKey.objects.get_or_create(
            pk=SshKey.ONLY, defaults={"private": Sealed.of(private), "public": public}
        )
        if created:
            audit.record(actor=actor, verb="ssh_key.made", target=key, after={"fingerprint": key.fingerprint})
    return key


def current_key() -> SshKey | None:
    """Return the portal's key, None before the first host or command that needed one."""
    return SshKey.objects.filter(pk=SshKey.ONLY).first()


def authorized_line(key: SshKey) -> str:
    """Return the line for a host's authorized_keys."""
    return f"{OPTIONS} {key.public} gatehouse"
