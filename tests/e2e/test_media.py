"""What is put into a machine in the browser, a CD and a volume, and looked at in its guest."""

import secrets

import pycdlib
import pytest

from tests.e2e import people
from tests.e2e.test_accessibility import keep_picture
from tests.e2e.test_devices import busybox, done, machine  # noqa: F401 (a fixture)
from tests.e2e.test_settings import virsh
from tests.e2e.test_volumes import PLACE, stem  # noqa: F401 (a fixture)

pytestmark = pytest.mark.live
WORDS = b"written on the CD by a test"


@pytest.fixture
def cd(tmp_path):
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, vol_ident="GTTEST")
    (tmp_path / "words").write_bytes(WORDS)
    iso.add_file(str(tmp_path / "words"), "/WORDS.;1")
    iso.write(str(tmp_path / "words.iso"))
    iso.close()
    return tmp_path / "words.iso"


def import_cd(page, portal, cd, name):
    """Send a CD as an admin does, and wait until a host has it."""
    page.goto(f"{portal.url}/machines/catalogue/admin/images/add/")
    page.check("[name=kind][value=iso]")
    for field, value in {"title": "A CD of words", "name": name, "version": "1"}.items():
        page.fill(f"[name={field}]", value)
    people.press(page, "Go on to the file")
    # The page is loaded anew when the file is there in full.
    with page.expect_navigation():
        page.set_input_files("#upload-file", cd)
    page.get_by_role("link", name="Import the image A CD of words").click()
    people.once(page, "Succeeded", 60)


def on_cd(machine, words):  # noqa: F811
    """Tell whether the guest reads these words from the CD that is in its drive."""
    return busybox(machine, "sh", "-c", f"grep -q '{words}' /dev/sr0 && echo yes").strip() == "yes"


def test_a_cd_is_put_in_and_taken_out(portal, sign_in, machine, cd):  # noqa: F811
    """Red when the page's drive, the host's and the guest's are not the same."""
    admin, page = sign_in("admin"), sign_in("requester")
    import_cd(admin, portal, cd, people.new_name())
    admin.context.close()
    address = f"{portal.url}/machines/{machine.pk}/media/"
    page.goto(address)
    page.wait_for_selector("text=The machine's own seed for cloud-init")
    assert on_cd(machine, "instance-id")
    done(page, "Eject")
    assert ".iso" not in virsh("domblklist", machine.uuid)
    page.goto(address)
    keep_picture(page, "media", "empty")
    page.get_by_label("CD of the catalogue").select_option(label="A CD of words 1")
    done(page, "Insert")
    page.goto(address)
    page.wait_for_selector("dd:has-text('A CD of words')")
    keep_picture(page, "media", "inserted")
    assert on_cd(machine, WORDS.decode())
    done(page, "Insert the seed")
    assert on_cd(machine, "instance-id")


def test_a_volume_is_attached_with_what_is_on_it_and_detached_again(portal, sign_in, machine, stem):  # noqa: F811
    """Red when the guest does not see the volume, or detaching deletes it."""
    page, approver = sign_in("operator"), sign_in("approver")
    [(pool, _name)] = portal.rows(f"{PLACE} ORDER BY a.id LIMIT 1")
    page.goto(f"{portal.url}/hosts/storage/{pool}/")
    page.fill("[name=name]", f"{stem}.qcow2")
    page.fill("[name=capacity]", "0.125")
    people.press(page, "Make it")
    people.once(page, "Succeeded", 60)

    address, words = f"{portal.url}/machines/{machine.pk}/", secrets.token_hex(8)
    for turn in ("first", "second"):
        page.goto(address)
        page.get_by_role("link", name="Add a disk").click()
        page.get_by_role("link", name="Attach a volume that lies in a pool instead").click()
        options = page.get_by_label("Volume")
        option = options.locator("option", has_text=stem)
        options.select_option(option.get_attribute("value"))
        page.get_by_label("What for").fill(f"its {turn} machine")
        keep_picture(page, "media", f"attach-{turn}")
        people.press(page, "Ask for this disk")
        request = page.url
        people.approve(approver, request)
        people.once(page, "Succeeded", 60)
        assert busybox(machine, "cat", "/sys/block/vdb/size").strip() == str(1 << 18)
        if turn == "first":
            busybox(machine, "sh", "-c", f"echo {words} | dd of=/dev/vdb conv=fsync")
        else:
            assert words in busybox(machine, "dd", "if=/dev/vdb", "bs=512", "count=1")
        page.goto(f"{address}disks/vdb/")
        keep_picture(page, "media", f"attached-{turn}")
        done(page, "Detach")
        assert "vdb" not in busybox(machine, "ls", "/sys/block")
    page.goto(f"{portal.url}/hosts/storage/{pool}/?q={stem}")
    page.get_by_role("link", name=f"{stem}.qcow2").click()
    keep_picture(page, "media", "detached")
    page.fill("[name=confirm_name]", f"{stem}.qcow2")
    done(page, "Delete")
