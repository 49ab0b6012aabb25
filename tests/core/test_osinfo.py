"""What osinfo-db knows: inherited devices and sizes, firmware, releases newer than it, broken files."""

from datetime import date

import pytest

from portal.core import osinfo
from portal.core.osinfo import Medium, Resources

GIB = 1 << 30
VIRTIO_NET, E1000 = "http://pcisig.com/pci/1af4/1041", "http://pcisig.com/pci/8086/100e"
VIRTIO_BLOCK = "http://pcisig.com/pci/1af4/1042"
OLD = f"""
  <os id="http://example.org/thing/9">
    <short-id>thing9</short-id><name>Thing 9</name><name xml:lang="de">Ding 9</name><family>linux</family>
    <eol-date>2030-05-01</eol-date>
    <firmware arch="x86_64" type="bios"/><firmware arch="x86_64" type="efi"/>
    <resources arch="all">
      <minimum><n-cpus>1</n-cpus><ram>{GIB}</ram><storage>{4 * GIB}</storage></minimum>
      <recommended><ram>{2 * GIB}</ram></recommended>
    </resources>
    <resources arch="x86_64"><minimum><ram>{3 * GIB}</ram></minimum></resources>
    <resources arch="aarch64"><minimum><n-cpus>64</n-cpus></minimum></resources>
    <devices><device id="{VIRTIO_NET}"/><device id="{E1000}"/><device id="http://x/1/2/3"/></devices>
    <distro>thing</distro><installer><script id="http://example.org/thing/preseed/jeos"/></installer>
    <media arch="i686"><kernel>install.386/vmlinuz</kernel><initrd>install.386/initrd.gz</initrd></media>
    <media arch="x86_64"><kernel>install.amd/vmlinuz</kernel><initrd>install.amd/initrd.gz</initrd></media>
    <media arch="x86_64" live="true"><kernel>live/vmlinuz</kernel><initrd>live/initrd</initrd></media>
    <media arch="x86_64"><kernel>half</kernel></media>
  </os>
"""
NEW = f"""
  <os id="http://example.org/thing/10">
    <short-id>thing10</short-id><short-id>thingten</short-id><name>Thing 10</name>
    <upgrades id="http://example.org/thing/9"/><derives-from id="http://example.org/thing/10"/>
    <firmware arch="x86_64" type="bios" supported="false"/>
    <devices><device id="{VIRTIO_BLOCK}"/><device id="{E1000}" supported="false"/></devices>
  </os>
"""


@pytest.fixture
def database(tmp_path, monkeypatch):
    """A folder with two systems and a file that is broken; returns how to add a file."""

    def write(name, text):
        (tmp_path / "os/example.org").mkdir(parents=True, exist_ok=True)
        (tmp_path / "os/example.org" / name).write_text(f"<libosinfo>{text}</libosinfo>")

    write("thing-9.xml", OLD)
    write("thing-10.xml", NEW)
    write("broken.xml", "<os")
    monkeypatch.setattr(osinfo, "FOLDERS", (tmp_path,))
    return write


@pytest.mark.usefixtures("database")
def test_a_system_has_its_own_names_dates_and_sizes_of_its_architecture():
    """Red when sizes of another architecture count, or a translated name."""
    known = osinfo.knowledge("thing9")
    assert (known.name, known.family, known.eol) == ("Thing 9", "linux", date(2030, 5, 1))
    assert known.least == Resources(1, 3 * GIB, 4 * GIB)


@pytest.mark.usefixtures("database")
def test_a_systems_cds_say_where_its_installers_kernel_lies():
    """Red when a CD of another architecture counts, or one that names no initrd."""
    known = osinfo.knowledge("thing9")
    assert (known.distribution, known.reads_preseed) == ("thing", True)
    installer = Medium("install.amd/vmlinuz", "install.amd/initrd.gz")
    assert known.media == (installer, Medium("live/vmlinuz", "live/initrd", live=True))
    assert osinfo.media() == set(known.media)
    later = osinfo.knowledge("thing10")
    assert (later.media, later.reads_preseed, later.distribution) == ((), False, "")


@pytest.mark.usefixtures("database")
def test_what_is_recommended_is_never_below_the_least():
    """Red when `at_least` is left out: the general 2 GiB stand below this architecture's 3."""
    assert osinfo.knowledge("thing9").recommended.memory == 3 * GIB


@pytest.mark.usefixtures("database")
def test_devices_sizes_and_firmware_are_inherited():
    """Red when parents are not followed, `supported` is not read, or a circle of them never ends."""
    known = osinfo.knowledge("thingten")
    assert known.devices == {"virtio-net", "virtio-block"}
    assert known.paravirtual and not osinfo.knowledge("thing9").paravirtual
    assert known.least.disk == 4 * GIB
    assert known.needs_uefi and not osinfo.knowledge("thing9").needs_uefi
    assert not known.needs_tpm


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize(
    ("asked", "found"), [("thing12", "thing10"), ("thing9.4", "thing9"), ("thing8", None), ("other12", None)]
)
def test_a_release_newer_than_the_database_is_told_by_the_nearest_earlier_one(asked, found):
    """Red when names are compared as text: thing9 comes after thing10 then."""
    known = osinfo.knowledge(asked)
    assert (known and known.short_id) == found
    assert not osinfo.is_known(asked)


@pytest.mark.usefixtures("database")
def test_systems_are_chosen_by_words_of_their_name_or_id():
    assert osinfo.choices("thing") == [("thing9", "Thing 9"), ("thing10", "Thing 10")]
    assert osinfo.choices("TEN") == [("thing10", "Thing 10")]
    assert osinfo.choices("thing 9 other") == []
    assert len(osinfo.choices(most=1)) == 1


def test_a_database_that_is_installed_later_is_read(tmp_path, monkeypatch):
    """Red when what was read once is kept for good."""
    monkeypatch.setattr(osinfo, "FOLDERS", (tmp_path / "absent",))
    assert not osinfo.is_there()
    assert osinfo.knowledge("thing9") is None
    assert osinfo.choices() == []
    folder = tmp_path / "absent/os"
    folder.mkdir(parents=True)
    (folder / "thing.xml").write_text(f"<libosinfo>{OLD}</libosinfo>")
    assert osinfo.knowledge("thing9").name == "Thing 9"


def test_entities_of_a_file_are_not_expanded(database):
    bomb = '<!DOCTYPE x [<!ENTITY a "boom">]><libosinfo>' + OLD.replace("Thing 9", "&a;") + "</libosinfo>"
    folder = osinfo.FOLDERS[0] / "os/example.org"
    (folder / "thing-9.xml").write_text(bomb)
    (osinfo.FOLDERS[0] / "VERSION").write_text("2")
    assert osinfo.knowledge("thing9") is None


def test_debians_package_knows_debian_and_what_windows_11_wants():
    """The real files: what is read of them is what the pages say."""
    debian = osinfo.knowledge("debian11")
    assert debian.least == Resources(1, GIB, 10 * GIB)
    assert debian.paravirtual and not debian.needs_uefi
    windows = osinfo.knowledge("win11")
    assert windows.least == Resources(2, 4 * GIB, 64 * GIB)
    assert windows.needs_uefi and windows.needs_tpm and not windows.paravirtual
    assert ("debian11", "Debian 11") in osinfo.choices("debian 11")
