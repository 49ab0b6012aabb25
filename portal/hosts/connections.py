"""What drivers connect by: a host's address, with the portal's own way of SSH where it needs one.

People give plain addresses (`addresses`); the query that names files is made here and nowhere else. Only
for processes that may use hypervisors: it writes the private key (mode 600) for their children.
"""

from pathlib import Path

from portal.core.encryption import Unreadable
from portal.drivers import ssh
from portal.drivers.errors import HostKeyUnconfirmed, NoIdentity
from portal.hosts.keys import current_key
from portal.hosts.models import Host, SshKey
from portal.settings.paths import STATE_DIR


def _folder() -> Path:
    return STATE_DIR / "run" / "ssh"


def forget(host_id: int) -> None:
    """Remove the files by which a host was reached that is removed. Idempotent."""
    ssh.forget(_folder(), str(host_id))


def connection_uri(host: Host, key: SshKey | None = None) -> str:
    """Return the URI for drivers; `key` is the portal's, for who has it at hand.

    Raises HostKeyUnconfirmed, and NoIdentity without the encryption key.
    """
    if not host.by_ssh:
        return host.uri
    key = key or current_key()
    if key is None or not host.host_key:
        raise HostKeyUnconfirmed("nobody confirmed this host's key yet")
    try:
        return ssh.prepare(_folder(), str(host.pk), host.uri, key.private.open(), host.host_key)
    except (Unreadable, OSError) as error:
        raise NoIdentity(str(error)) from error
