"""Two people at one machine, and one person at many machines, in the browser."""

import pytest

from tests.e2e import people
from tests.e2e.test_accessibility import keep_picture
from tests.e2e.test_settings import virsh

pytestmark = pytest.mark.live


def choose(page, portal, *machines):
    """Tick the machines in the list, youngest lease first: other tests left more than a page of theirs."""
    page.goto(f"{portal.url}/machines/?sort=-lease")
    for machine in machines:
        page.get_by_label(f"Choose {machine.name}").check()


def test_the_second_of_two_people_sees_what_the_first_named(portal, sign_in, build):
    """Red when the page of the name lists no changes, or signs what it never showed."""
    machine = build()
    first, second = sign_in("requester"), sign_in("operator")
    address, renamed = f"{portal.url}/machines/{machine.pk}/", people.new_name()
    for page in (first, second):
        page.goto(address)
        page.get_by_role("link", name="Name and labels").click()
        page.wait_for_selector("[name=labels]")
    first.fill("[name=name]", renamed)
    first.fill("[name=labels]", "role=web\nimportant")
    people.press(first, "Set the name and the labels")
    people.once(first, "important", 10)
    # The title on the host follows.
    people.once(first, f"Change settings of {renamed}", 30)

    # The browser says on its console what a refused form was answered with.
    sign_in.cut = True
    second.fill("[name=labels]", "role=database")
    second.get_by_role("button", name="Set the name and the labels").click()
    people.once(second, "Somebody changed this while you looked", 10)
    shown = second.locator(".changes-unseen").inner_text()
    assert machine.name in shown and renamed in shown and "+ role=web" in shown and "+ important" in shown
    assert second.input_value("[name=labels]") == "role=database"
    keep_picture(second, "together", "named")
    kept = portal.one("SELECT labels FROM vms_virtualmachine WHERE id = ?", machine.pk)
    assert kept == "important\nrole=web"

    # Now that it was shown, the second may go on.
    second.fill("[name=name]", renamed)
    people.press(second, "Set the name and the labels")
    people.once(second, "role=database", 10)
    keep_picture(second, "together", "named-anew")
    assert portal.one("SELECT name FROM vms_virtualmachine WHERE id = ?", machine.pk) == renamed
    assert renamed in virsh("desc", machine.uuid, "--title", "--config")


def test_the_second_of_two_people_sees_that_a_card_is_the_last_one_by_now(portal, sign_in, build):
    """Red when a button does not carry what its page showed, or the page does not say what changed."""
    machine = build()
    first, second = sign_in("requester"), sign_in("operator")
    address = f"{portal.url}/machines/{machine.pk}/"
    first.goto(address)
    people.press(first, "Force off")
    people.is_off(first, 30)
    first.goto(f"{address}cards/")
    people.press(first, "Add the card")
    people.once(first, "Succeeded", 60)
    second.goto(f"{address}cards/")
    second.locator("a.row-name").first.click()
    second.wait_for_selector("text=Remove the card")
    first.goto(f"{address}cards/")
    first.locator("a.row-name").last.click()
    people.press(first, "Remove the card")
    people.once(first, "Succeeded", 60)

    # The browser says on its console what a refused form was answered with.
    sign_in.cut = True
    second.get_by_role("button", name="Remove the card").click()
    people.once(second, "Somebody changed this while you looked", 10)
    assert "The machine's last card" in second.locator(".changes-unseen").inner_text()
    keep_picture(second, "together", "last-card")
    assert virsh("domiflist", machine.uuid).count(":") > 1
    people.press(second, "Remove the card")
    people.once(second, "Succeeded", 60)
    assert ":" not in virsh("domiflist", machine.uuid)


def test_many_machines_are_switched_by_one_press_and_the_page_follows(portal, sign_in, build):
    """Red when a press on many begins less than was confirmed, or the page of their progress stands still."""
    both = build(), build()
    page = sign_in("requester")
    choose(page, portal, *both)
    page.get_by_role("button", name="Force off", exact=True).click()
    people.once(page, "It will be done to", 10)
    keep_picture(page, "together", "confirm")
    sign_in.cut = True
    page.fill("[name=confirm_count]", "1")
    page.get_by_role("button", name="Force off", exact=True).click()
    people.once(page, "Nothing was done", 10)
    assert all("running" in virsh("domstate", machine.uuid) for machine in both)
    page.fill("[name=confirm_count]", "2")
    people.press(page, "Force off")
    # By itself: nobody loads the page anew.
    people.once(page, "All done", 60)
    people.once(page, "2 of 2 done", 5)
    keep_picture(page, "together", "done")
    assert all("shut off" in virsh("domstate", machine.uuid) for machine in both)

    page.goto(f"{portal.url}/machines/{both[0].pk}/")
    people.is_off(page, 30)
    people.press(page, "Start")
    people.once(page, "Running", 30)
    choose(page, portal, *both)
    page.get_by_role("button", name="Start", exact=True).click()
    people.once(page, f"{both[0].name}: The machine is running", 10)
    keep_picture(page, "together", "left-alone")
    people.press(page, "Start")
    people.once(page, "All done", 60)
    people.once(page, "1 of 1 done", 5)
    assert all("running" in virsh("domstate", machine.uuid) for machine in both)
