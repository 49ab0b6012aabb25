"""CDs as distributions make them, with the long names of Rock Ridge, for tests."""

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import pycdlib

#: What a file begins with that a BIOS' loader, or QEMU, takes for a Linux kernel.
KERNEL = bytes(0x202) + b"HdrS" + b"kernel" * 500


def make_cd(path: Path, files: Mapping[str, bytes | Path], links: Mapping[str, str] | None = None) -> Path:
    """Write a CD with `files`, by names of at most one folder, and symbolic `links`; return its path."""
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=1, rock_ridge="1.09", vol_ident="Debian 12.5.0 amd64 n")
    folders: dict[str, str] = {"": ""}
    for number, name in enumerate([*files, *(links or {})]):
        folder, _slash, last = name.rpartition("/")
        if folder not in folders:
            folders[folder] = f"/DIR{len(folders)}"
            iso.add_directory(folders[folder], rr_name=folder)
        place = f"{folders[folder]}/F{number}.;1"
        if links and name in links:
            iso.add_symlink(place, last, links[name])
            continue
        content = files[name]
        if isinstance(content, Path):
            iso.add_file(str(content), place, rr_name=last)
        else:
            iso.add_fp(BytesIO(content), len(content), place, rr_name=last)
    iso.write(str(path))
    iso.close()
    return path
