"""What strangers hand in as images: what is taken, and the reason why the rest is not."""

import os
import pwd
import secrets
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from portal.drivers import imagefile, sandbox
from portal.drivers.seed import build_iso
from portal.drivers.types import SeedSpec

GIB, MIB = 1 << 30, 1 << 20
MOST = 100 * GIB


def make(path: Path, *options: str, size: str = "16M") -> str:
    subprocess.run(["qemu-img", "create", "-q", *options, path, size], check=True)
    return str(path)


def write(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return str(path)


def iso_bytes() -> bytes:
    return build_iso(SeedSpec("pool", "x.iso", "instance-id: x", "#cloud-config"))


def disk_bytes(length: int = MIB) -> bytes:
    """A raw disk that says that it can be booted, with noise in it."""
    return (bytes(510) + b"\x55\xaa" + secrets.token_bytes(4096)).ljust(length, b"\0")


def judged(path: str, *, iso: bool = False) -> imagefile.Judged:
    return imagefile.judge(path, iso=iso, most_capacity=MOST)


def reason(path: str, *, iso: bool = False) -> tuple[str, str]:
    with pytest.raises(imagefile.Unfit) as refused:
        judged(path, iso=iso)
    return refused.value.code, refused.value.raw


def test_what_is_taken(tmp_path: Path) -> None:
    qcow2 = make(tmp_path / "a", "-f", "qcow2")
    assert judged(qcow2) == imagefile.Judged("qcow2", os.stat(qcow2).st_size, 16 * MIB)
    raw = write(tmp_path / "b", disk_bytes(MIB + 5))
    assert judged(raw) == imagefile.Judged("raw", MIB + 5, MIB + 512)
    iso = write(tmp_path / "c", iso_bytes())
    assert judged(iso, iso=True).format == "iso"


def test_an_image_that_reads_another_file_is_refused_before_anything_opens_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Red when `_refuse_by_header` does not look at the name of a backing file."""
    monkeypatch.setattr(sandbox, "run", lambda *_a, **_k: pytest.fail("opened by QEMU"))
    shadow = make(tmp_path / "a", "-u", "-f", "qcow2", "-F", "raw", "-b", "/etc/shadow")
    assert reason(shadow) == ("image_backed", "/etc/shadow")
    outside = make(tmp_path / "b", "-f", "qcow2", "-o", f"data_file={tmp_path}/data,data_file_raw=on")
    assert reason(outside) == ("image_external", "")


@pytest.mark.parametrize(
    ("options", "code", "word"),
    [
        (("-f", "vmdk", "-o", "subformat=monolithicFlat"), "image_foreign", "VMDK in several files"),
        (("-f", "vmdk", "-o", "subformat=twoGbMaxExtentSparse"), "image_foreign", "VMDK in several files"),
        (("-f", "qed"), "image_foreign", "QED"),
        (("-f", "qcow"), "image_foreign", "QCOW1"),
    ],
)
def test_other_formats_are_refused_by_name(tmp_path: Path, options, code: str, word: str) -> None:
    assert reason(make(tmp_path / "a", *options)) == (code, word)


@pytest.mark.parametrize("form", ["vmdk", "vdi", "vpc", "vhdx"])
def test_no_disk_of_another_format_is_a_cd(tmp_path: Path, form: str) -> None:
    assert reason(make(tmp_path / "a", "-f", form), iso=True)[0] == "image_foreign"


def test_an_encrypted_one_is_refused(tmp_path: Path) -> None:
    path = Path(make(tmp_path / "a", "-f", "qcow2"))
    with path.open("r+b") as file:
        file.seek(32)
        file.write(struct.pack(">I", 2))
    assert reason(str(path))[0] == "image_encrypted"


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "image_empty"),
        (b"<!DOCTYPE html><html>" + bytes(2000), "image_unknown"),
        (b"\x1f\x8b" + bytes(2000), "image_packed"),
        (b"\xfd7zXZ\0" + bytes(2000), "image_packed"),
        (bytes(257) + b"ustar" + bytes(2000), "image_packed"),
        (iso_bytes(), "image_is_iso"),
        (b"QFI\xfb\0\0\0\3", "image_damaged"),
        (b"QFI\xfb" + struct.pack(">IQIIQI", 3, 0, 0, 16, 1 << 20, 0) + bytes(2000), "image_damaged"),
    ],
)
def test_what_is_no_disk(tmp_path: Path, content: bytes, code: str) -> None:
    assert reason(write(tmp_path / "a", content))[0] == code


CLUSTER = 65536


def full_qcow2(path: Path) -> Path:
    """A qcow2 with 4 MiB of noise: its header, table of counts, counts, L1 and L2 tables, then the noise."""
    raw = write(path.with_suffix(".raw"), disk_bytes()[:4608] + secrets.token_bytes(4 * MIB - 4608))
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, path], check=True)
    return path


def put(path: Path, at: int, content: bytes) -> str:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(content)
    return str(path)


def test_a_file_that_is_not_whole_is_refused_with_what_was_found(tmp_path: Path) -> None:
    """Red when `_check_whole` is not called for a qcow2: its header alone is whole."""
    assert judged(str(full_qcow2(tmp_path / "a"))).capacity_bytes == 4 * MIB
    cut = full_qcow2(tmp_path / "b")
    os.truncate(cut, cut.stat().st_size // 2)
    code, raw = reason(str(cut))
    assert code == "image_corrupt" and "exceeding the end of the file" in raw and "\n" not in raw
    far = put(full_qcow2(tmp_path / "c"), 40, struct.pack(">Q", 1 << 40))
    assert reason(far)[0] == "image_corrupt"


def test_what_says_itself_that_it_is_corrupt_is_refused_before_anything_opens_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Red when `_refuse_by_header` does not look at the mark that QEMU leaves."""
    marked = put(full_qcow2(tmp_path / "a"), 72, struct.pack(">Q", 1 << 1))
    monkeypatch.setattr(sandbox, "run", lambda *_a, **_k: pytest.fail("opened by QEMU"))
    assert reason(marked) == ("image_corrupt", "it is marked as corrupt")


def test_room_that_is_taken_and_not_used_is_no_fault(tmp_path: Path) -> None:
    """Red when `_LEAKS` counts as a fault: what was shrunk or lost its power has some."""
    path = full_qcow2(tmp_path / "a")
    last = path.stat().st_size // CLUSTER
    os.truncate(path, (last + 1) * CLUSTER)
    put(path, 2 * CLUSTER + 2 * last, struct.pack(">H", 1))
    checked = subprocess.run(["qemu-img", "check", "-f", "qcow2", path], capture_output=True, check=False)
    assert checked.returncode == 3
    assert judged(str(path)).format == "qcow2"


def fail_check(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    real = sandbox.run

    def run(argv, **options):
        if argv[1] == "check":
            raise error
        return real(argv, **options)

    monkeypatch.setattr(sandbox, "run", run)


def test_what_is_not_the_files_fault_is_told_as_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Red when each end of the check but a good one is Unfit: the file would be thrown away."""
    path = str(full_qcow2(tmp_path / "a"))
    with monkeypatch.context() as patched:
        fail_check(patched, sandbox.ProgramCut("qemu-img did not end within 120 s"))
        with pytest.raises(sandbox.ProgramCut):
            judged(path)
    fail_check(monkeypatch, sandbox.ProgramFailed("qemu-img: Check failed: Input/output error"))
    with pytest.raises(OSError, match="Input/output error"):
        judged(path)


def test_how_long_a_check_may_take_follows_from_the_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Red when the seconds are the same for each: a large image would be cut off."""
    given, real = [], sandbox.run

    def run(argv, **options):
        given.append((argv[1], options["seconds"]))
        return real(argv, **options)

    monkeypatch.setattr(sandbox, "run", run)
    judged(make(tmp_path / "a", "-f", "qcow2"))
    judged(make(tmp_path / "b", "-f", "qcow2", size="90G"))
    (small, large) = [seconds for what, seconds in given if what == "check"]
    assert small < 130 and large > 4000


def test_complaints_without_end_are_no_matter(tmp_path: Path) -> None:
    """Red when complaints go into a file as long as what a program may say: these have more than a MiB."""
    path, raw = tmp_path / "a", write(tmp_path / "raw", secrets.token_bytes(16 * MIB))
    made = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-o", "cluster_size=512"]
    subprocess.run([*made, raw, path], check=True)
    length, tables = struct.unpack_from(">IQ", path.read_bytes(), 36)
    # Nothing is in use any more, and all of it is taken.
    put(path, tables, bytes(8 * length))
    checked = subprocess.run(["qemu-img", "check", "-f", "qcow2", path], capture_output=True, check=False)
    assert len(checked.stderr) > MIB
    assert judged(str(path)).format == "qcow2"


@pytest.mark.parametrize("bits", [48, 62])
def test_an_absurd_size_is_refused(tmp_path: Path, bits: int) -> None:
    """Red when `_check_capacity` is not asked for a qcow2."""
    path = Path(make(tmp_path / "a", "-f", "qcow2"))
    with path.open("r+b") as file:
        file.seek(24)
        file.write(struct.pack(">Q", 1 << bits))
    assert reason(str(path))[0] == "image_huge"
    assert reason(make(tmp_path / "b", "-f", "qcow2", size="101G")) == ("image_huge", "101.0 GiB")


def test_what_is_no_iso_or_half_a_one(tmp_path: Path) -> None:
    """Red when `iso9660.inspect` does not compare the volume's size with the file's."""
    assert reason(write(tmp_path / "a", disk_bytes()), iso=True)[0] == "iso_invalid"
    assert reason(write(tmp_path / "b", b"short"), iso=True)[0] == "iso_invalid"
    whole = iso_bytes()
    assert reason(write(tmp_path / "c", whole[: len(whole) - 4096]), iso=True)[0] == "image_cut"


@pytest.mark.parametrize(
    ("head", "code"),
    [(b"QFI\xfb\0\0\0\3", "iso_invalid"), (b"QED\0", "image_foreign"), (b"KDMV", "image_foreign")],
)
def test_a_cd_that_begins_as_a_disk_does_is_refused(tmp_path: Path, head: bytes, code: str) -> None:
    """Red when the bytes before a CD's own are not looked at: a pool would read a backing file there."""
    assert reason(write(tmp_path / "a", head + iso_bytes()[len(head) :]), iso=True)[0] == code


def test_what_is_said_to_be_raw_stays_that_whatever_a_guest_wrote_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Red when `judge` looks for a format all the same: the header names a file of the host."""
    backed = make(tmp_path / "a", "-u", "-f", "qcow2", "-F", "raw", "-b", "/etc/shadow")
    monkeypatch.setattr(sandbox, "run", lambda *_a, **_k: pytest.fail("opened by QEMU"))
    for content in (Path(backed).read_bytes(), b"KDMV" + bytes(2000), iso_bytes(), bytes(MIB), b"\x1f\x8b"):
        path = write(tmp_path / "b", content)
        found = imagefile.judge(path, iso=False, most_capacity=MOST, raw=True)
        assert found == imagefile.Judged("raw", len(content), -(-len(content) // 512) * 512)
    with pytest.raises(imagefile.Unfit, match="GiB"):
        imagefile.judge(path, iso=False, most_capacity=0, raw=True)


def test_a_raw_disk_becomes_a_qcow2_with_the_same_content(tmp_path: Path) -> None:
    raw, target = write(tmp_path / "a", disk_bytes()), tmp_path / "b"
    target.write_bytes(b"what a killed worker left")
    imagefile.to_qcow2(raw, str(target), MIB)
    back = tmp_path / "c"
    subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", target, back], check=True)
    assert back.read_bytes() == Path(raw).read_bytes()


HARM = (
    ("cat", "/etc/passwd"),
    ("ls", "/"),
    ("touch", "/tmp/gttest-made"),
    ("chmod", "777", "{file}"),
    ("truncate", "-s", "0", "{file}"),
    ("rm", "{file}"),
    ("qemu-img", "info", "nbd://127.0.0.1:1/x"),
    ("qemu-img", "info", "--backing-chain", "{backed}"),
    ("env", "cat", "{file}"),
)


@pytest.mark.parametrize("argv", HARM, ids=" ".join)
def test_the_sandbox_gives_nothing_but_the_file(tmp_path: Path, argv) -> None:
    """Red when Landlock or the list of calls is left out; each is more without it."""
    file, backed = make(tmp_path / "a", "-f", "qcow2"), tmp_path / "b"
    make(backed, "-f", "qcow2", "-F", "qcow2", "-b", make(tmp_path / "base", "-f", "qcow2"))
    before = Path(file).read_bytes(), os.stat(file).st_mode
    words = [word.format(file=file, backed=backed) for word in argv]
    with pytest.raises(sandbox.ProgramFailed, match="ermitted|ermission|annot open"):
        sandbox.run(words, reads=[file, str(backed)])
    assert (Path(file).read_bytes(), os.stat(file).st_mode) == before


@pytest.mark.slow
def test_the_sandbox_has_limits(tmp_path: Path) -> None:
    """Red when a limit is not set in the child."""
    file = write(tmp_path / "a", b"x")
    assert sandbox.run(["cat", file], reads=[file]) == b"x"
    with pytest.raises(sandbox.ProgramCut, match="did not end"):
        sandbox.run(["sleep", "60"], reads=[], seconds=0.5)
    with pytest.raises(sandbox.ProgramFailed, match="too large"):
        sandbox.run(["truncate", "-s", "40M", file], reads=[], writes=[file])
    with pytest.raises(sandbox.ProgramFailed, match="memory"):
        sandbox.run(["dd", f"if={file}", "bs=3G", "count=1"], reads=[file])
    with pytest.raises(sandbox.SandboxMissing, match="not installed"):
        sandbox.run(["no-such-program"], reads=[])


@pytest.mark.parametrize("name", ["KILL", "ABRT", "SEGV"])
def test_a_program_that_a_signal_ends_says_nothing_of_the_file(tmp_path: Path, name: str) -> None:
    """Red when it counts as an error of the program's own: the file would be thrown away."""
    number = getattr(signal, f"SIG{name}")
    raw, target = write(tmp_path / "a", disk_bytes()), tmp_path / "b"
    popen = subprocess.Popen

    def shot(argv, **options):
        process = popen(argv, **options)
        process.send_signal(number)
        return process

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "Popen", shot)
        with pytest.raises(sandbox.ProgramCut, match=f"qemu-img was ended by SIG{name}"):
            imagefile.to_qcow2(raw, str(target), MIB)
    imagefile.to_qcow2(raw, str(target), MIB)


def test_a_program_ends_when_whoever_waits_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Red when nobody is asked while it runs: an import could not be cancelled for as long as it converts."""

    class Enough(Exception):
        pass

    begun = []
    popen = subprocess.Popen

    def kept(argv, **options):
        begun.append(popen(argv, **options))
        return begun[0]

    def gives_up() -> None:
        raise Enough

    monkeypatch.setattr(subprocess, "Popen", kept)
    monkeypatch.setattr(sandbox, "LOOK_EVERY", 0.05)
    with pytest.raises(Enough):
        sandbox.run(["sleep", "60"], reads=[], seconds=60, check=gives_up)
    assert begun[0].returncode == -signal.SIGKILL


def test_what_a_program_says_of_its_progress_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Red when the percent is not looked for in what a program said last."""
    file, told = write(tmp_path / "a", b"    (1.00/100%)\r    (37.50/100%)\r"), []
    monkeypatch.setattr(sandbox, "LOOK_EVERY", 0.05)
    with pytest.raises(sandbox.ProgramCut):
        sandbox.run(["tail", "-f", file], reads=[file], seconds=0.5, progress=told.append)
    assert set(told) == {37}


AS_NOBODY = """
import os, sys
from portal.drivers import imagefile
os.setgroups([]); os.setgid(65534); os.setuid(65534)
print(imagefile.judge(sys.argv[1], iso=False, most_capacity=1 << 40).format)
"""


def test_it_needs_no_right_of_root(tmp_path: Path) -> None:
    """A worker that is nobody in particular confines as well as root does."""
    path = tmp_path / "a"
    make(path, "-f", "qcow2")
    path.chmod(0o644)
    # Pytest's folders are closed to others.
    for folder in [tmp_path, *tmp_path.parents]:
        if folder.owner() == pwd.getpwuid(os.getuid()).pw_name and not folder.stat().st_mode & 0o1001:
            folder.chmod(0o755)
    done = subprocess.run([sys.executable, "-c", AS_NOBODY, path], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "qcow2"
