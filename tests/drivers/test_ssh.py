"""Host keys, what ssh says, and the files that connections are made by."""

import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from portal.drivers import errors, ssh

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBqlmw4cs6tlQDlWZnzSDE/q0OXGahgBFbdGB3sL3wSM"
URI = "qemu+ssh://gate@rack-1:2222/system"


def test_a_fingerprint_is_what_ssh_keygen_prints(tmp_path):
    (tmp_path / "key.pub").write_text(KEY + "\n")
    told = subprocess.run(["ssh-keygen", "-lf", tmp_path / "key.pub"], capture_output=True, text=True)
    assert ssh.fingerprint(KEY) == told.stdout.split()[1]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "ssh-ed25519",
        "ssh-ed25519 not-base64!",
        "ssh-ed25519 AAAA",
        "ssh-dss AAAAB3NzaC1kc3M=",
        KEY.replace("ssh-ed25519", "ssh-rsa"),
        "ssh-ed25519 " + "A" * 3000,
        "@cert-authority * " + KEY,
    ],
)
def test_what_is_no_key_is_refused(line):
    """Red when check_key does not compare the kind inside with the kind that is written."""
    with pytest.raises(ValueError):
        ssh.check_key(line)


def test_only_the_kind_and_the_key_itself_are_kept():
    assert ssh.check_key(f"{KEY} root@host * and more") == KEY


@pytest.mark.parametrize(
    ("uri", "address"),
    [
        ("qemu+ssh://gate@rack-1:2222/system", ("gate", "rack-1", 2222)),
        ("qemu+ssh://rack-1/system", ("root", "rack-1", 22)),
        ("qemu:///system", None),
        ("qemu+unix:///system?socket=/x", None),
        ("fake:///", None),
    ],
)
def test_addresses(uri, address):
    found = ssh.SshAddress.of(uri)
    assert (found and (found.user, found.host, found.port)) == address


# As libvirt 9.0 with OpenSSH 9.2 said it, but for names.
SOCKET = "'/var/run/libvirt/libvirt-sock'"
HELPER = f"End of file while reading data: virt-ssh-helper: cannot connect to {SOCKET}: "
HELPER += f"Failed to connect socket to {SOCKET}: "
RESET = ": Connection reset by peer"
SAID = {
    f"Cannot recv data: gate@rack: Permission denied (publickey).{RESET}": "key_refused",
    "Cannot recv data: @@@\r\n@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\r\n"
    f"Host key verification failed.{RESET}": "host_key_changed",
    "Cannot recv data: ssh: Could not resolve hostname rack: Name or service not known" + RESET:
    "name_unknown",
    f"{HELPER}Permission denied: Input/output error": "libvirt_refused",
    f"{HELPER}Connection refused: Input/output error": "libvirt_absent",
    f"{HELPER}No such file or directory: Input/output error": "libvirt_absent",
    "End of file while reading data: sh: 1: nc: not found: Input/output error": "libvirt_absent",
    f"Cannot recv data: ssh: connect to host rack port 22: Connection refused{RESET}": "",
    f"Cannot recv data: ssh: connect to host rack port 22: Connection timed out{RESET}": "",
}


@pytest.mark.parametrize("said", SAID)
def test_each_failure_has_a_meaning_of_its_own(said):
    """Red when two patterns change places, or one is taken away."""
    kind = ssh.meaning(said)
    assert (kind.code if kind else "") == SAID[said]


def test_files_are_for_this_account_alone_and_say_what_to_trust(tmp_path):
    """Red when a file is written with the mode of the umask, or known_hosts holds another key."""
    uri = ssh.prepare(tmp_path / "ssh", "7", URI, "PRIVATE", KEY)
    program, target, folder = ssh.command(uri)
    assert target == ["-p", "2222", "-l", "gate", "--", "rack-1"] and program == [str(folder / "ssh")]
    modes = {path.name: path.stat().st_mode & 0o777 for path in [folder, *folder.iterdir()]}
    assert modes == {folder.name: 0o700, "key": 0o600, "known_hosts": 0o600, "config": 0o600, "ssh": 0o700}
    assert (folder / "known_hosts").read_text() == f"gatehouse {KEY}\n"
    told = subprocess.run(
        [*program, "-G", "rack-1"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert "stricthostkeychecking true" in told and "hostkeyalgorithms ssh-ed25519" in told
    assert "identityfile ./key" in told and "userknownhostsfile ./known_hosts" in told
    assert "batchmode yes" in told and "globalknownhostsfile /dev/null" in told


def test_another_key_takes_the_place_of_the_former(tmp_path):
    """Red when the folder's name does not depend on the host key, or the former folder stays."""
    first = ssh.prepare(tmp_path, "7", URI, "PRIVATE", KEY)
    other = ssh.prepare(tmp_path, "77", URI, "PRIVATE", KEY)
    assert ssh.prepare(tmp_path, "7", URI, "PRIVATE", KEY) == first
    second = ssh.prepare(tmp_path, "7", URI, "PRIVATE", KEY[:-1] + "N")
    assert second != first and not ssh.command(first)[2].exists()
    assert ssh.command(second)[2].exists() and ssh.command(other)[2].exists()


def test_many_threads_at_once_make_one_folder(tmp_path):
    """Red when they share the folder in which the files are made."""
    with ThreadPoolExecutor(16) as threads:
        found = set(threads.map(lambda _: ssh.prepare(tmp_path, "7", URI, "PRIVATE", KEY), range(64)))
    assert len(found) == 1 and len(list(tmp_path.iterdir())) == 1


def test_a_uri_without_our_ssh_runs_nothing():
    for uri in ("qemu:///system", URI):
        with pytest.raises(errors.NotSupported):
            ssh.command(uri)


def test_a_name_that_leads_nowhere_and_a_port_where_nobody_listens():
    with pytest.raises(errors.NameUnknown):
        ssh.fetch_host_key(ssh.SshAddress("root", "no-such-host.invalid"))
    with pytest.raises(errors.HostUnreachable):
        ssh.fetch_host_key(ssh.SshAddress("root", "127.0.0.1", 1))
