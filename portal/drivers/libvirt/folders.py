"""What folders of a host are called without symbolic links, which libvirt does not tell.

As with what a kernel is set to, the file system of this machine is asked, and that of a further host by SFTP
with the portal's own SSH; of a host that offers none nothing is known, and nothing fails. Not for: files.
"""

import os
import posixpath
import subprocess
from collections.abc import Iterable, Mapping

from portal.drivers import ssh
from portal.drivers.errors import NotSupported
from portal.drivers.libvirt.connection import is_local

_SECONDS = 10.0
_TOLD = "Remote working directory: "
#: Asked for at once; a host with more is asked for the first of them.
_MOST = 1000


def canonical(uri: str, paths: Iterable[str]) -> Mapping[str, str]:
    """Return each of `paths` with the links of its folder resolved; as it is where nobody tells.

    What the last part of a path is, a link as well, is not looked at. Never raises.
    """
    parts = {path: posixpath.split(path) for path in paths}
    absolute = {folder for folder, _name in parts.values() if folder.startswith("/") and folder.isprintable()}
    folders = sorted(absolute - {"/"})[:_MOST]
    real = _here(folders) if is_local(uri) else _by_sftp(uri, folders)
    return {path: posixpath.join(real.get(folder, folder), name) for path, (folder, name) in parts.items()}


def _here(folders: Iterable[str]) -> Mapping[str, str]:
    return {folder: os.path.realpath(folder) for folder in folders}


def _by_sftp(uri: str, folders: Iterable[str]) -> Mapping[str, str]:
    # What these mean in an order sftp does not write down.
    asked = [folder for folder in folders if not set(folder) & set("\"'\\*?[]{}")]
    # The dash: a folder that cannot be entered leaves it at the root, and does not end the others.
    orders = "".join(f'cd /\n-cd "{folder}"\npwd\n' for folder in asked)
    try:
        told = ssh.sftp(uri, orders, _SECONDS)
    except (NotSupported, OSError, subprocess.SubprocessError):
        return {}
    real = [line.removeprefix(_TOLD) for line in told.splitlines() if line.startswith(_TOLD)]
    if len(real) != len(asked):
        return {}
    pairs = zip(asked, real, strict=True)
    return {folder: there for folder, there in pairs if there.startswith("/") and there != "/"}
