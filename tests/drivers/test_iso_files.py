"""Where the files of a CD lie: by its long names, and whatever a stranger wrote into its folders."""

import random
import struct
from io import BytesIO
from pathlib import Path

import pycdlib
import pytest

from portal.drivers import iso9660
from portal.drivers.iso9660 import Piece, find
from tests.cds import make_cd

NAME = "install.amd/vmlinuz"
CONTENT = b"kernel" * 1000
_ROOT_AT = iso9660.DESCRIPTOR_AT + 156


@pytest.fixture
def cd(tmp_path: Path) -> Path:
    """A CD with a folder and two files in it, one of which is a link."""
    return make_cd(tmp_path / "cd.iso", {NAME: CONTENT, "empty": b""}, {"install.amd/link": "vmlinuz"})


def put(path: Path, at: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(content)


def entry_of(path: Path, name: str) -> int:
    """Return where the entry begins whose long name is `name`."""
    content = path.read_bytes()
    at = content.index(b"NM" + bytes([5 + len(name), 1, 0]) + name.encode()) - 34
    # Where its file begins and how long it is are said twice, the second time with the high byte first.
    while not all(content[at + n : at + n + 4] == content[at + n + 4 : at + n + 8][::-1] for n in (2, 10)):
        at -= 1
    return at


def test_a_file_lies_where_its_bytes_are(cd: Path) -> None:
    """Red when the long names of Rock Ridge are not read, or a folder counts as a file."""
    [(name, piece)] = find(str(cd), [NAME, "install.amd", "install.amd/none", "no/vmlinuz"]).items()
    assert name == NAME
    assert cd.read_bytes()[piece.at : piece.at + piece.length] == CONTENT


def test_names_without_rock_ridge_are_those_of_the_disc_in_small_letters(tmp_path: Path) -> None:
    """Red when the version or the dot of a name without a suffix stays."""
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3)
    iso.add_directory("/CASPER")
    iso.add_fp(BytesIO(CONTENT), len(CONTENT), "/CASPER/VMLINUZ.;1")
    iso.write(str(tmp_path / "a"))
    assert find(str(tmp_path / "a"), ["casper/vmlinuz"]).keys() == {"casper/vmlinuz"}


def test_no_link_is_followed_and_what_is_empty_is_no_file(cd: Path) -> None:
    """Red when an entry with SL counts, whatever it says of a place, or one of no length."""
    entry = entry_of(cd, "vmlinuz")
    put(cd, entry_of(cd, "link") + 2, cd.read_bytes()[entry + 2 : entry + 18])
    assert find(str(cd), ["install.amd/link", "empty"]) == {}


@pytest.mark.parametrize("flags", [0x04, 0x08, 0x80])
def test_a_file_that_is_not_in_one_piece_is_none(cd: Path, flags: int) -> None:
    """Red when the flags are not looked at: the bytes would be another file's."""
    put(cd, entry_of(cd, "vmlinuz") + 25, bytes([flags]))
    assert find(str(cd), [NAME]) == {}


def test_what_would_lie_beyond_the_end_is_not_there(cd: Path) -> None:
    """Red when the length of the file is not asked for."""
    entry = entry_of(cd, "vmlinuz")
    for at, value in ((2, 0xFFFFFFF0), (10, 0xFFFFFFFF)):
        there = cd.read_bytes()[entry + at : entry + at + 4]
        put(cd, entry + at, struct.pack("<I", value))
        assert find(str(cd), [NAME]) == {}
        put(cd, entry + at, there)
    assert find(str(cd), [NAME])


def test_of_a_folder_without_end_a_part_is_read(cd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Red when a folder is read as long as it says: one may say 4 GiB."""
    read: list[int] = []
    real = iso9660._records
    monkeypatch.setattr(iso9660, "_records", lambda content: read.append(len(content)) or real(content))
    with cd.open("r+b") as file:
        file.truncate(64 << 20)
    put(cd, _ROOT_AT + 10, struct.pack("<I", 0xFFFFFFFF))
    assert find(str(cd), [NAME])
    assert max(read) == iso9660.MOST_OF_FOLDER


def test_a_folder_that_holds_itself_is_no_matter(cd: Path) -> None:
    entry, root = entry_of(cd, "install.amd"), cd.read_bytes()[_ROOT_AT + 2 : _ROOT_AT + 6]
    put(cd, entry + 2, root)
    assert find(str(cd), [NAME, "/".join(["install.amd"] * 50)]) == {}


def test_no_iso_and_none_of_the_size_of_blocks_that_cds_have(cd: Path, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"short")
    assert find(str(tmp_path / "a"), [NAME]) == {}
    put(cd, iso9660.DESCRIPTOR_AT + 128, struct.pack("<H", 512))
    assert find(str(cd), [NAME]) == {}
    with pytest.raises(OSError, match="No such file"):
        find(str(tmp_path / "none"), [NAME])


def test_whatever_stands_in_its_folders_nothing_but_a_place_in_the_file_comes_of_it(cd: Path) -> None:
    """Red when an entry that is cut off, or shorter than its name, is read all the same."""
    whole, draw = cd.read_bytes(), random.Random(1)  # noqa: S311 no secret
    for _turn in range(2000):
        broken = bytearray(whole)
        for _byte in range(draw.randint(1, 12)):
            broken[draw.randrange(_ROOT_AT, whole.index(CONTENT))] = draw.randrange(256)
        for _turn in range(draw.randint(0, 3)):
            broken[draw.randrange(_ROOT_AT, _ROOT_AT + 34)] = draw.randrange(256)
        cd.write_bytes(broken)
        for piece in find(str(cd), [NAME]).values():
            assert isinstance(piece, Piece) and 0 < piece.length <= len(whole) - piece.at
