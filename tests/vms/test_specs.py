"""What a machine is told of at its first start: the cloud-init seed."""

import pytest
import yaml

from portal.operations.registry import StepContext
from vms import cloud as cloud_init
from vms import specs

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBqlmw4cs6tlQDlWZnzSDE a: 'b' # c"


def cloud(**changes):
    asked = {"user": "debian", "hostname": "web-1", "ssh_keys": [KEY], "packages": [], "user_data": ""}
    return asked | changes


def told(**changes):
    """Return the document that cloud-init reads."""
    text = specs.user_data(cloud(**changes))
    assert text.startswith("#cloud-config\n")
    return yaml.safe_load(text)


def test_the_person_signs_in_by_key_alone():
    """Red when the key is left out, or passwords are let in."""
    document = told()
    (person,) = document["users"]
    assert (person["name"], person["ssh_authorized_keys"], person["lock_passwd"]) == ("debian", [KEY], True)
    assert document["ssh_pwauth"] is False and document["disable_root"] is True
    assert (document["hostname"], document["fqdn"]) == ("web-1", "web-1")
    assert "packages" not in document


def test_root_is_let_in_where_the_image_signs_in_as_root():
    document = told(user="root")
    assert document["disable_root"] is False and "sudo" not in document["users"][0]


def test_people_of_ones_own_document_come_after_the_one_asked_for():
    """Red when the own list replaces the person. Other forms than a list are refused by check_user_data()."""
    document = told(user_data="#cloud-config\nusers: [default, {name: ops, shell: /bin/sh}]\n")
    assert document["users"][0]["name"] == "debian"
    assert document["users"][1:] == ["default", {"name": "ops", "shell": "/bin/sh"}]


def test_ones_own_document_is_kept_and_does_not_rename_the_machine():
    """Red when the own document is laid over what the form fixes."""
    own = """#cloud-config
hostname: other
packages: [curl]
write_files:
- path: /srv/note
  content: |
    grüße "two"
    lines
"""
    document = told(user_data=own, packages=["nginx", "git"])
    assert document["hostname"] == "web-1" and document["packages"] == ["curl", "nginx", "git"]
    assert document["write_files"] == [{"path": "/srv/note", "content": 'grüße "two"\nlines\n'}]


def test_whoever_gives_no_key_gets_no_list_of_keys():
    """Red when an empty list is written: cloud-init's schema refuses it."""
    (person,) = told(ssh_keys=[])["users"]
    assert person["name"] == "debian" and "ssh_authorized_keys" not in person


@pytest.mark.parametrize("user", ["debian", "root"])
def test_no_document_of_ones_own_opens_the_machine_or_renames_it(user):
    """Red when user_data() takes over the keys of OURS and leaves it to the form to refuse them."""
    own = {"ssh_pwauth": True, "disable_root": user == "root", "user": {"ssh_authorized_keys": [KEY]}}
    own |= {"hostname": "other", "fqdn": "other.example", "preserve_hostname": True, "cloud_init_modules": []}
    own |= {"runcmd": ["ls"]}
    merged = told(user=user, user_data=yaml.safe_dump(own))
    assert merged == told(user=user) | {"runcmd": ["ls"]}


@pytest.mark.parametrize("name", [{"name": "debian"}, {"name": "default"}, {}])
def test_no_user_of_ones_own_takes_the_place_of_the_one_asked_for(name):
    """Red when `contends` is not asked: cloud-init lays such an entry and the person's over each other."""
    other = {"name": "ops", "shell": "/bin/sh"}
    rival = name | {"ssh_authorized_keys": ["ssh-ed25519 other"], "inactive": "1"}
    own = {"users": [rival, "default", other]}
    assert told(user_data=yaml.safe_dump(own))["users"] == [*told()["users"], "default", other]


@pytest.mark.parametrize("own", [{"users": "ops,debian"}, {"users": {"ops": {}}}, {"packages": "nginx"}])
def test_lists_in_another_form_are_not_merged_letter_by_letter(own):
    """Red when `_listed` takes what is no list. At the form check_user_data() has refused it already."""
    with pytest.raises(cloud_init.Invalid):
        told(packages=["git"], user_data=yaml.safe_dump(own))


@pytest.mark.parametrize("name", ["yes", "0x10", "a: b", "- x", "null"])
def test_what_yaml_would_misread_arrives_as_it_was_written(name):
    """Red when the document is put together as text."""
    document = told(hostname=name, packages=[name])
    assert document["hostname"] == name and document["packages"] == [name]


def test_the_seed_names_the_machine_and_its_card():
    names = {"pool": "p", "seed": "s.iso", "uuid": "u-1", "mac": "52:54:00:00:00:01"}
    seed = specs.seed_spec(StepContext({"pinned": {"cloud": cloud()}}, names, lambda: None))
    assert yaml.safe_load(seed.meta_data) == {"instance-id": "u-1", "local-hostname": "web-1"}
    card = yaml.safe_load(seed.network_config)["ethernets"]["primary"]
    assert card == {"match": {"macaddress": "52:54:00:00:00:01"}, "dhcp4": True}
