"""A volume's life in the browser: made, copied in its pool, to another one, moved there, deleted."""

import secrets

import pytest

from portal.drivers.registry import driver_for
from tests.e2e import axe, people
from tests.e2e.test_accessibility import look_at
from tests.e2e.test_copies import second_pool  # noqa: F401 (a fixture)
from tests.e2e.test_settings import URI

pytestmark = pytest.mark.live
PLACE = "SELECT a.id, p.name FROM hosts_poolattachment a JOIN hosts_storagepool p ON p.id = a.pool_id"


@pytest.fixture
def stem(portal):
    """How the names of the test's volumes begin; what is left of them in the first pool goes."""
    name = f"gttest-{secrets.token_hex(3)}"
    yield name
    driver = driver_for(URI)
    for _pk, pool in portal.rows(f"{PLACE} ORDER BY a.id LIMIT 1"):
        for volume in driver.list_volumes(pool):
            if volume.name.startswith(name):
                driver.delete_volume(pool, volume.name)
    driver.close()


def choose(page, pool):
    """Choose a pool by its name, with which the words of its option begin."""
    options = page.locator("[name=other-pool]")
    option = options.locator("option", has_text=pool)
    options.select_option(option.get_attribute("value"))


def test_a_volume_is_made_copied_moved_and_deleted(portal, sign_in, second_pool, stem):  # noqa: F811
    """Red when a button does not lead on, or the page of the new volume is not shown in the end."""
    page = sign_in("operator")
    axe.put_into(page.context)
    [(first, first_name)] = portal.rows(f"{PLACE} ORDER BY a.id LIMIT 1")
    [(second, second_name)] = portal.rows(f"{PLACE} WHERE a.path = ?", second_pool)
    driver, wrong = driver_for(URI), []

    page.goto(f"{portal.url}/hosts/storage/{first}/")
    page.fill("[name=name]", f"{stem}.qcow2")
    page.fill("[name=capacity]", "0.03")
    people.press(page, "Make it")
    people.once(page, "Succeeded", 60)
    page.goto(f"{portal.url}/hosts/storage/{first}/?q={stem}")
    page.get_by_role("link", name=f"{stem}.qcow2").click()
    wrong += look_at(page, "operator", "volume")

    page.fill("[name=name]", f"{stem}-near.qcow2")
    people.press(page, "Copy")
    people.once(page, "Succeeded", 60)
    near = portal.one("SELECT id FROM hosts_volume WHERE name = ?", f"{stem}-near.qcow2")

    page.goto(f"{portal.url}/hosts/storage/volumes/{near}/")
    choose(page, second_name)
    page.fill("[name=other-name]", f"{stem}-far.qcow2")
    people.press(page, "Copy to another pool")
    people.once(page, "Succeeded", 60)
    wrong += look_at(page, "operator", "volume-copied")

    # The name is taken there now, and a sentence says so.
    page.goto(f"{portal.url}/hosts/storage/volumes/{near}/")
    choose(page, second_name)
    page.fill("[name=other-name]", f"{stem}-far.qcow2")
    sign_in.cut = True
    page.get_by_role("button", name="Move to another pool").click()
    people.once(page, "The pool has a volume of this name already.", 10)
    wrong += look_at(page, "operator", "volume-taken")
    page.fill("[name=other-name]", f"{stem}-near.qcow2")
    people.press(page, "Move to another pool")
    people.once(page, "Succeeded", 60)
    wrong += look_at(page, "operator", "volume-moved")
    left = {info.name for info in driver.list_volumes(first_name)}
    there = {info.name for info in driver.list_volumes(second_name)}
    assert f"{stem}-near.qcow2" not in left and f"{stem}.qcow2" in left
    assert {f"{stem}-near.qcow2", f"{stem}-far.qcow2"} <= there

    # From the operation to the volume in its new pool, which is deleted there.
    page.get_by_role("link", name="Go to what this is about").click()
    people.once(page, f"{second_pool}/{stem}-near.qcow2", 10)
    page.fill("[name=confirm_name]", f"{stem}-near.qcow2")
    people.press(page, "Delete")
    people.once(page, "Succeeded", 60)
    assert f"{stem}-near.qcow2" not in {info.name for info in driver.list_volumes(second_name)}
    driver.close()
    assert not wrong


def test_a_file_that_nobody_knows_becomes_a_volume_once_it_is_said_to_be_raw(portal, sign_in, stem, tmp_path):
    """Red when the page of the upload does not ask, or what is asked is not told to the worker."""
    page = sign_in("operator")
    axe.put_into(page.context)
    [(pool, _name)] = portal.rows(f"{PLACE} ORDER BY a.id LIMIT 1")
    data = tmp_path / "data.img"
    data.write_bytes(b"a disk of data alone".ljust(2 << 20, b"\0"))
    page.goto(f"{portal.url}/hosts/storage/{pool}/")
    assert not page.is_checked("[name=upload-raw]")
    wrong = look_at(page, "operator", "pool")
    page.fill("[name=upload-name]", f"{stem}-data.qcow2")
    people.press(page, "Go on to the file")
    address = page.url
    # The page is loaded anew when the file is there in full.
    with page.expect_navigation():
        page.set_input_files("#upload-file", data)
    asks = page.get_by_role("button", name="It is a raw disk: take it byte for byte")
    for _turn in range(60):
        page.goto(address)
        if asks.count():
            break
        page.wait_for_timeout(500)
    wrong += look_at(page, "operator", "upload-unknown")
    asks.click()
    for _turn in range(60):
        page.goto(address)
        if page.get_by_role("link", name="Open the volume").count():
            break
        page.wait_for_timeout(500)
    page.get_by_role("link", name="Open the volume").click()
    page.wait_for_selector(f"text={stem}-data.qcow2")
    assert wrong == []
    capacity = portal.one("SELECT observed_capacity FROM hosts_volume WHERE name = ?", f"{stem}-data.qcow2")
    assert capacity == 2 << 20
