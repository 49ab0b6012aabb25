"""Admins and images in the browser: one of several disks of an OVA is chosen, and an image is said anew."""

import subprocess

import pytest

from portal.drivers.ova import archive
from portal.drivers.ova.appliance import Appliance, PackedDisk
from tests.e2e import axe, people
from tests.e2e.test_accessibility import keep_picture, look_at

pytestmark = pytest.mark.live
MIB = 1 << 20
#: A boot sector's last bytes.
BOOT = bytes(510) + b"\x55\xaa"


@pytest.fixture
def ova(tmp_path):
    """An appliance of two disks, the second of 3 MiB."""
    disks = {}
    for number, size in enumerate((2 * MIB, 3 * MIB), 1):
        raw, path = tmp_path / f"{number}.raw", tmp_path / f"gttest disk ({number}).vmdk"
        raw.write_bytes((BOOT + b"gatehouse").ljust(size, bytes([number])))
        subprocess.run(
            ["qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", raw, path],
            check=True,
        )
        disks[path.name] = path
    packed = tuple(PackedDisk(name, 2 * MIB + number * MIB) for number, name in enumerate(disks))
    archive.pack(tmp_path / "gttest.ova", Appliance("gttest", 1, 64 * MIB, packed), disks, {})
    return tmp_path / "gttest.ova"


def complaints(page, name):
    return look_at(page, "admin", name)


def hand_in(page, portal, ova, **fields):
    """Add an image of an appliance; return its name and the address of its upload."""
    page.goto(f"{portal.url}/machines/catalogue/admin/images/add/")
    name = people.new_name()
    for field, value in {"title": "Two disks", "name": name, "version": "1", **fields}.items():
        page.fill(f"[name={field}]", value)
    keep_picture(page, "admin", "image-add")
    people.press(page, "Go on to the file")
    address = page.url
    # The page is loaded anew when the file is there in full.
    with page.expect_navigation():
        page.set_input_files("#upload-file", ova)
    return name, address


def until_there(page, address, found):
    """Load a page until `found` is on it."""
    for _turn in range(60):
        page.goto(address)
        if found().count():
            return
        page.wait_for_timeout(500)
    raise AssertionError("it did not come")


def open_image(page, address):
    link = page.get_by_role("link", name="Open the image")
    until_there(page, address, lambda: link)
    link.click()


def test_a_disk_of_an_ova_is_chosen_from_the_list(portal, sign_in, ova):
    """Red when the list does not come, or the first disk is taken whatever is chosen."""
    page = sign_in("admin")
    axe.put_into(page.context)
    name, address = hand_in(page, portal, ova, disk="9")
    until_there(page, address, lambda: page.get_by_text("Which disk is taken?"))
    assert page.is_checked("[name=disk][value='']")
    assert complaints(page, "choose-disk") == []
    page.get_by_role("link", name="Import the image Two disks").click()
    page.wait_for_selector("text=no disk with the number 9")
    keep_picture(page, "admin", "choose-operation")
    page.get_by_role("link", name="Go to what this is about").click()
    page.check("[name=disk][value='2']")
    people.press(page, "Import what is chosen")
    open_image(page, address)
    page.wait_for_selector("text=number 2 of 2")
    assert complaints(page, "image") == []
    rows = portal.rows("SELECT virtual_size FROM hosts_image WHERE name = ?", name)
    assert [size for (size,) in rows] == [3 * MIB]


def test_all_disks_of_an_ova_become_one_image(portal, sign_in, ova):
    """Red when one disk alone is taken where nobody said a number."""
    page = sign_in("admin")
    axe.put_into(page.context)
    name, address = hand_in(page, portal, ova)
    open_image(page, address)
    page.wait_for_selector("text=Further disks")
    assert complaints(page, "image-whole") == []
    assert portal.one("SELECT virtual_size FROM hosts_image WHERE name = ?", name) == 2 * MIB


def test_an_image_is_described_anew_and_what_follows_is_told(portal, sign_in):
    """Red when what follows is not told, or what was said goes with the next start."""
    page = sign_in("admin")
    axe.put_into(page.context)
    page.goto(f"{portal.url}/machines/catalogue/admin/images/")
    page.get_by_role("link", name="Tiny Linux").first.click()
    image = page.url
    page.get_by_role("link", name="Describe it anew").click()
    assert complaints(page, "describe") == []
    least = page.input_value("[name=min_memory]")
    page.fill("[name=min_memory]", "0.5")
    people.press(page, "Save")
    page.wait_for_selector("text=Nothing is saved yet")
    page.wait_for_selector("text=in the sizes that are too small: Tiny")
    assert complaints(page, "describe-follows") == []
    people.press(page, "Save it all the same")
    assert page.url == image
    page.wait_for_selector("text=Edited by hand")
    assert complaints(page, "described") == []
    page.get_by_role("link", name="Add a newer version").click()
    assert page.input_value("[name=name]") == "tiny" and page.input_value("[name=version]") == ""
    assert complaints(page, "newer") == []
    # As before, for the other tests.
    page.goto(f"{image}describe/")
    page.fill("[name=min_memory]", least)
    people.press(page, "Save")
    assert page.url == image


def test_who_is_refused_a_private_address_allows_its_network(portal, sign_in):
    """Red when the refusal does not lead there, or the first press allows a network."""
    page = sign_in("admin")
    axe.put_into(page.context)
    page.goto(f"{portal.url}/machines/catalogue/admin/images/fetch/")
    told = {"address": "http://10.77.0.5/a.qcow2", "sha256": "0" * 64}
    for field, value in {**told, "title": "Far", "name": people.new_name(), "version": "1"}.items():
        page.fill(f"[name={field}]", value)
    assert complaints(page, "fetch") == []
    people.press(page, "Fetch the image")
    page.wait_for_selector("text=10.77.0.5 is not a public address")
    assert complaints(page, "fetch-refused") == []
    page.get_by_role("link", name="See which networks are allowed").click()
    page.wait_for_selector("text=No private network is allowed")
    assert complaints(page, "networks-none") == []
    page.get_by_role("link", name="Allow a network").first.click()
    page.fill("[name=network]", "10.77.0.0/16")
    page.fill("[name=reason]", "gttest: our mirror of the images that everybody starts from")
    assert complaints(page, "network-add") == []
    people.press(page, "Go on")
    page.wait_for_selector("text=Nothing is allowed yet")
    page.wait_for_selector("text=65,536 of them")
    assert complaints(page, "network-follows") == []
    assert not portal.rows("SELECT network FROM hosts_importnetwork")
    people.press(page, "Allow it")
    assert complaints(page, "networks") == []
    page.get_by_role("link", name="10.77.0.0/16").click()
    assert complaints(page, "network") == []
    page.fill("[name=confirm_name]", "10.77.0.0/16")
    people.press(page, "Remove")
    page.wait_for_selector("text=Nothing is fetched from 10.77.0.0/16")
    verbs = portal.rows("SELECT verb FROM audit_auditentry WHERE verb LIKE 'image.network%' ORDER BY id")
    assert [verb for (verb,) in verbs] == ["image.network_allowed", "image.network_taken_back"]
