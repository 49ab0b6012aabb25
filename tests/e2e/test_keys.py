"""What people keep in the portal once and choose from: SSH keys, and answers for installers."""

import subprocess

import pytest

from tests.e2e import axe, people
from tests.e2e.conftest import Machine
from tests.e2e.portals import remove_domains
from tests.e2e.test_accessibility import keep_picture, look_at
from tests.e2e.test_devices import await_guest, busybox
from tests.e2e.test_installer import OFFER

pytestmark = pytest.mark.live
ANSWERS = """d-i debian-installer/locale string en_US.UTF-8
d-i finish-install/exit/poweroff boolean true
"""


def new_key(folder, comment):
    """Return the public half of a new key."""
    path = folder / comment
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", path], check=True)
    return path.with_suffix(".pub").read_text().strip()


def test_a_key_is_kept_once_chosen_and_in_the_guest(portal, sign_in, tmp_path):
    """Red when a key that was kept is not offered, or one that was not ticked gets into the guest."""
    page, approver = sign_in("requester"), sign_in("approver")
    axe.put_into(page.context)
    wanted, other = new_key(tmp_path, "laptop"), new_key(tmp_path, "lent")
    page.goto(f"{portal.url}/accounts/profile/keys/")
    sign_in.cut = True
    page.fill("[name=line]", f"{wanted[:40]} half")
    page.get_by_role("button", name="Add the key").click()
    page.wait_for_selector(".field-wrong")
    wrong = look_at(page, "requester", "key-refused")
    for line in (wanted, other):
        page.fill("[name=line]", line)
        people.press(page, "Add the key")
    page.wait_for_selector("text=laptop")
    wrong += look_at(page, "requester", "keys")

    name = people.new_name()
    page.goto(f"{portal.url}/machines/catalogue/")
    page.get_by_role("link", name="Ask for Tiny Linux").click()
    page.fill("[name=name]", name)
    page.fill("[name=why]", "with a key")
    page.get_by_label("laptop").check()
    page.get_by_label("lent").uncheck()
    wrong += look_at(page, "requester", "ask-with-keys")
    people.press(page, "Send the request")
    people.approve(approver, page.url)
    people.once(page, "Succeeded", 60)
    built = portal.rows("SELECT id, uuid FROM vms_virtualmachine WHERE name = ?", name)[0]
    machine = Machine.of(name, *built)
    try:
        await_guest(machine)
        kept = busybox(machine, "cat", "/root/.ssh/authorized_keys")
        assert wanted.split()[1] in kept and other.split()[1] not in kept
    finally:
        remove_domains({machine.uuid})
    page.goto(f"{portal.url}/accounts/profile/keys/")
    for comment in ("laptop", "lent"):
        people.press(page, f"Remove {comment}")
    page.wait_for_selector("text=You keep no key here.")
    assert wrong == []


def test_answers_for_an_installer_are_written_and_chosen(portal, sign_in, tmp_path):
    """Red when answers that cannot be filled in are kept, or a request holds no text of its own."""
    portal.shell(OFFER)
    page, name = sign_in("admin"), f"Answers {people.new_name()}"
    axe.put_into(page.context)
    page.goto(f"{portal.url}/machines/catalogue/templates/add/")
    page.fill("[name=name]", name)
    page.select_option("[name=format]", "preseed")
    page.fill("[name=text]", ANSWERS + "d-i passwd/username string $nobody\n")
    sign_in.cut = True
    page.get_by_role("button", name="Save").click()
    page.wait_for_selector(".field-wrong")
    wrong = look_at(page, "admin", "answers-refused")
    page.fill("[name=text]", ANSWERS)
    people.press(page, "Save")
    page.get_by_role("link", name=name).click()
    assert page.input_value("[name=text]") == ANSWERS
    wrong += look_at(page, "admin", "answers")
    template = page.url

    requester, machine = sign_in("requester"), people.new_name()
    requester.goto(f"{portal.url}/machines/catalogue/")
    requester.get_by_role("link", name="Ask for Debian by its installer").click()
    requester.fill("[name=name]", machine)
    requester.fill("[name=why]", "to install it")
    requester.get_by_label("Installation").select_option(label=name)
    requester.fill("[name=ssh_keys]", new_key(tmp_path, "hers"))
    people.press(requester, "Send the request")
    requester.wait_for_selector("text=Awaiting approval")
    keep_picture(requester, "requester", "answers-asked")
    requester.get_by_text(name).first.wait_for()

    page.goto(template)
    people.press(page, "Delete")
    assert page.get_by_role("link", name=name).count() == 0
    asked = "SELECT spec FROM operations_operation WHERE id = ?"
    assert "finish-install" in portal.one(asked, int(requester.url.rstrip("/").rsplit("/", 1)[1]))
    requester.get_by_role("button", name="Withdraw", exact=True).click()
    requester.wait_for_selector("text=Withdrawn")
    assert wrong == []
