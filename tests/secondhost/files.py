"""What a second host has under /etc: accounts, an SSH server, a libvirtd. Not for: starting it."""

import shutil
import subprocess
import uuid
from pathlib import Path

#: An account that may use libvirt (in its group) and one that may not.
MEMBER, STRANGER = "gate", "stranger"

SSHD = """\
ListenAddress {address}
HostKey /etc/ssh/ssh_host_ed25519_key
AuthorizedKeysFile /etc/ssh/authorized/%u
PidFile /run/sshd.pid
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
Subsystem sftp internal-sftp
UseDNS no
"""
LIBVIRTD = """\
unix_sock_group = "libvirt"
unix_sock_ro_perms = "0777"
unix_sock_rw_perms = "0770"
auth_unix_ro = "none"
auth_unix_rw = "none"
host_uuid = "{uuid}"
"""
# QEMU runs as on any Debian host, as libvirt-qemu; a mount namespace for each guest is one too many here.
QEMU = 'security_driver = "none"\nnamespaces = []\n'


def write_files(folder: Path, name: str, address: str) -> None:
    """Fill `folder` with a host's own files. What is there already is kept: a host keeps its identity."""
    etc = folder / "etc"
    if etc.exists():
        return
    for path in ("ssh/authorized", "libvirt"):
        (etc / path).mkdir(parents=True)
    for part in ("run", "var/lib/libvirt", "var/cache/libvirt", "var/log/libvirt"):
        (folder / part).mkdir(parents=True)
    host = uuid.uuid4()
    (etc / "machine-id").write_text(f"{host.hex}\n")
    (etc / "hostname").write_text(f"{name}\n")
    (etc / "hosts").write_text(f"127.0.0.1 localhost\n{address} {name}\n")
    _accounts(etc)
    new_host_key(folder)
    (etc / "ssh/sshd_config").write_text(SSHD.format(address=address))
    # The filters that come with libvirt. No networks: this machine's own are none of the host's.
    if Path("/etc/libvirt/nwfilter").exists():
        shutil.copytree("/etc/libvirt/nwfilter", etc / "libvirt/nwfilter", symlinks=True)
    (etc / "libvirt/libvirtd.conf").write_text(LIBVIRTD.format(uuid=host))
    (etc / "libvirt/qemu.conf").write_text(QEMU)
    (etc / "libvirt/virtlogd.conf").write_text("")


def _accounts(etc: Path) -> None:
    for name in ("passwd", "group", "shadow"):
        shutil.copy2(Path("/etc", name), etc / name)
    for number, name in enumerate((MEMBER, STRANGER), start=64100):
        with (etc / "passwd").open("a") as passwd:
            passwd.write(f"{name}:x:{number}:{number}::/tmp:/bin/bash\n")
        with (etc / "shadow").open("a") as shadow:
            shadow.write(f"{name}:*:20000:0:99999:7:::\n")
        with (etc / "group").open("a") as group:
            group.write(f"{name}:x:{number}:\n")
    add_to_group(etc.parent, MEMBER, "libvirt")


def add_to_group(folder: Path, user: str, group: str) -> None:
    """Make a user a member of a group. In place: the file is mounted, so nothing can be put in its stead."""
    path = folder / "etc/group"
    lines = path.read_text().splitlines()
    lines = [f"{line}{',' if line[-1] != ':' else ''}{user}" if line.startswith(f"{group}:") else line
             for line in lines]
    path.write_text("\n".join(lines) + "\n")


def new_host_key(folder: Path) -> None:
    """Give the host another key; its SSH server reads it when it starts."""
    path = folder / "etc/ssh/ssh_host_ed25519_key"
    path.unlink(missing_ok=True)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", path], check=True,
                   input=b"y\n", stdout=subprocess.DEVNULL)


def fingerprint(folder: Path) -> str:
    """Return the host key's fingerprint as ssh prints it (SHA256:…)."""
    path = folder / "etc/ssh/ssh_host_ed25519_key.pub"
    told = subprocess.run(["ssh-keygen", "-lf", path], check=True, capture_output=True, text=True).stdout
    return told.split()[1]
