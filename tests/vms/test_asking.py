"""The request form, its what-if, edit and copy: bad input at its field, through the page and the service."""

import uuid
from dataclasses import replace

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from portal.core.errors import Denied
from portal.operations import revisions, scopes, services
from portal.operations.models import Counter, Operation
from portal.operations.states import State
from tests import factories
from tests.factories import GIB, MIB
from tests.operations.policies.conftest import policy  # noqa: F401
from vms import asking, cloud, prefill
from vms.models import CatalogueItem, Flavour, VirtualMachine
from vms.services import edit_machine_request, request_machine

pytestmark = [pytest.mark.database, pytest.mark.django_db]
SCHEMA = {
    "type": "object",
    "properties": {
        "runcmd": {"type": "array"},
        "write_files": {"items": {"additionalProperties": False, "properties": {"path": {}}}},
    },
}


@pytest.fixture
def offered(cast, settings, tmp_path):
    """What can be asked for, on a host with room; a disk may be chosen."""
    (tmp_path / "schema.json").write_text(cloud.json.dumps(SCHEMA))
    settings.CLOUD_CONFIG_SCHEMA = tmp_path / "schema.json"
    image = factories.make_image(cloud_init=True)
    factories.make_place(factories.make_host(), image=image)
    catalogue = factories.make_catalogue(image, factories.make_network())
    CatalogueItem.objects.update(disk_least=256 * MIB, disk_most=1000 * GIB)
    catalogue.item.refresh_from_db()
    counter = {"scope": scopes.of_project(cast.project), "resource": "disk"}
    Counter.objects.create(**counter, limit=100 * GIB)
    return catalogue


@pytest.fixture
def client(client, cast):
    client.force_login(cast.requester)
    return client


def typed(cast, offered, **changes):
    """Return the form's fields as a browser sends them."""
    values = {
        "token": str(uuid.uuid4()),
        "project": cast.project.pk,
        "name": "example-vm",
        "flavour": offered.flavour.pk,
        "network": offered.network.pk,
        "disk": "",
        "lease_days": "30",
        "why": "to try it",
        "user": "root",
        "ssh_keys": "",
        "packages": "",
        "user_data": "",
    }
    return values | changes


def ask(cast, offered, **changes):
    wish = factories.make_wish(offered, **changes)
    return request_machine(actor=cast.requester, project=cast.project, wish=wish, token=uuid.uuid4())


def url(name, pk):
    return reverse(f"vms:{name}", args=[pk])


NAME = "A name has 1 to 63 small letters"
#: field, what is typed, what the service is given, what is said there
BAD = [
    ("name", "<b>x</b>", None, NAME),
    ("name", "a]]>b", None, NAME),
    ("name", "a;reboot", None, NAME),
    ("name", "$(reboot)", None, NAME),
    ("name", "a b", None, NAME),
    ("name", "../../etc", None, NAME),
    ("name", "-rf", None, NAME),
    ("name", "Große", None, NAME),
    ("name", "vm\u202e", None, NAME),
    ("name", "a" * 64, None, ""),
    ("user", "root; id", None, "A user's name has"),
    ("user", "0", None, "A user's name has"),
    ("user", "default", None, "means the image's own user"),
    ("disk", "0", 0, "so that the image fits"),
    ("disk", "-5", -5 * GIB, "so that the image fits"),
    ("disk", "0.2", 205 * MIB, "is 256 MiB to 1000 GiB"),
    ("disk", "1e30", 10**39, "is 256 MiB to 1000 GiB"),
    ("disk", "101", 101 * GIB, "not enough disk left for the project example: 101 GiB asked, 100 GiB"),
    ("lease_days", "0", 0, "The lease is 1 to 365 days."),
    ("lease_days", "-1", -1, "The lease is 1 to 365 days."),
    ("lease_days", "9" * 30, int("9" * 30), "The lease is 1 to 365 days."),
    ("why", "bell \x07", None, "a character that cannot be shown"),
    ("ssh_keys", "ssh-rsa <script>", None, "Line 1 is no SSH public key."),
    ("ssh_keys", "-----BEGIN OPENSSH PRIVATE KEY-----", None, "This is a private key."),
    ("packages", "nginx; reboot", None, "is no package name"),
    ("user_data", "echo", None, "must start with the line #cloud-config"),
    ("user_data", "#cloud-config\na: !!bool maybe\n", None, "This is not valid YAML."),
    ("user_data", "#cloud-config\na: !!int ''\n", None, "This is not valid YAML."),
    ("user_data", "#cloud-config\na: [1\nb: 2\n", None, "Line 3 (b: 2): This is not valid YAML"),
    ("user_data", "#cloud-config\nruncmd: 5\n", None, "Line 2 (runcmd: 5): cloud-init would refuse"),
    (
        "user_data",
        "#cloud-config\nwrite_files:\n  - path: /x\n    mode: 5\n",
        None,
        "Line 4 (mode: 5): cloud-init would refuse this at write_files.0",
    ),
    ("user_data", "#cloud-config\nssh_pwauth: true\n", None, "The portal sets ssh_pwauth itself"),
    ("user_data", "#cloud-config\nuser: {name: ops}\n", None, "The portal sets user itself"),
    ("user_data", "#cloud-config\nusers:\n- ops\n- name: root\n", None, "Line 4 (- name: root): The"),
    ("user_data", "#cloud-config\nusers: [{uid: 7}]\n", None, "name another in each entry of users"),
    (
        "user_data",
        "#cloud-config\na: &a [1,1,1,1,1,1,1,1,1]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\n"
        "c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\n"
        "e: [*d,*d,*d,*d,*d,*d,*d,*d,*d]\n",
        None,
        "repeats itself by anchors",
    ),
]


@pytest.mark.parametrize(("field", "text", "value", "sentence"), BAD)
def test_what_cannot_be_is_said_at_its_field(client, cast, offered, field, text, value, sentence):
    """Red when a check is left out of checks._CHECKS, or a Denied names another field."""
    answer = client.post(url("ask", offered.item.pk), typed(cast, offered, **{field: text}))
    form = answer.context["form"]
    assert answer.status_code == 422 and set(form.errors) == {field}
    assert sentence in form.errors[field][0]
    with pytest.raises(Denied) as refused:
        ask(cast, offered, **{field: text if value is None else value})
    assert refused.value.field == field and sentence in refused.value.reason
    assert not Operation.objects.exists()


@pytest.mark.parametrize(("field", "text", "value", "sentence"), BAD)
def test_the_same_is_said_while_one_types(client, cast, offered, field, text, value, sentence):
    """Red when what_if does not send the places for errors, or the check needs the whole form."""
    half = typed(cast, offered, **{"why": "", field: text})
    page = client.post(url("what_if", offered.item.pk), half)
    assert page.status_code == 200 and set(page.context["form"].errors) == {field}
    assert f'id="id_{field}_error" class="field-error" aria-live="polite" hx-swap-oob="true"><div>' in (
        page.content.decode()
    )
    assert not Operation.objects.exists()


def test_every_wrong_field_is_named_at_once_and_what_was_typed_is_kept(client, cast, offered):
    wrong = typed(cast, offered, name="<b>", disk="0", lease_days="0", why="", user="")
    page = client.post(url("ask", offered.item.pk), wrong)
    assert set(page.context["form"].errors) == {"name", "disk", "lease_days", "why", "user"}
    assert "&lt;b&gt;" in page.content.decode() and "<b>" not in page.content.decode()


def test_too_little_quota_is_said_at_the_size_and_the_count_at_the_project(client, cast, offered):
    scope = scopes.of_project(cast.project)
    machines = Counter.objects.create(scope=scope, resource="machines", limit=0)
    page = client.post(url("ask", offered.item.pk), typed(cast, offered))
    assert "not enough machines left" in page.context["form"].errors["project"][0]
    Counter.objects.filter(pk=machines.pk).update(resource="memory", limit=1)
    page = client.post(url("what_if", offered.item.pk), typed(cast, offered))
    assert "not enough memory left" in page.context["form"].errors["flavour"][0]


def test_a_doubled_submit_goes_to_the_first_request(client, cast, offered):
    """Red when request_machine asks whether the name is free before it looks at the token."""
    sent = typed(cast, offered)
    answers = [client.post(url("ask", offered.item.pk), sent) for _ in range(2)]
    operation = Operation.objects.get()
    assert {answer.url for answer in answers} == {reverse("operations:detail", args=[operation.pk])}


def test_a_taken_name_is_said_while_one_types_and_when_sent(client, cast, offered):
    ask(cast, offered, name="taken")
    for view in ("ask", "what_if"):
        page = client.post(url(view, offered.item.pk), typed(cast, offered, name="taken"))
        assert page.context["form"].errors["name"] == ["The name taken is taken; choose another."]


def test_the_what_if_says_sizes_place_cost_and_what_is_left(client, cast, offered):
    """Red when look() takes the size's disk in place of the one that was typed."""
    CatalogueItem.objects.update(cost_month_gib="0.10")
    page = client.post(url("what_if", offered.item.pk), typed(cast, offered, disk="20.25"))
    sight = page.context["sight"]
    assert (sight.sizes["disk"], sight.outlook.place) == (20 * GIB + 256 * MIB, "example-host")
    assert sight.outlook.cost_month == "4.50"
    assert [(quota.resource, quota.left) for quota in sight.outlook.quotas] == [("Disk", "79.8 GiB")]
    assert not page.context["form"].errors and not sight.missing


def test_what_is_merely_empty_is_refused_only_after_it_was_sent(client, cast, offered):
    half = typed(cast, offered, name="", why="")
    page = client.post(url("what_if", offered.item.pk), half)
    assert not page.context["form"].errors and page.context["sight"].missing == ["Name", "What is it for?"]
    page = client.post(url("what_if", offered.item.pk), half | {"tried": "1"})
    assert set(page.context["form"].errors) == {"name", "why"}


def test_the_what_if_says_who_would_decide(client, cast, offered, chief, policy):  # noqa: F811
    """Red when look() does not ask the policies, or tells them another item, cost or size."""
    sent = typed(cast, offered)
    said = client.post(url("what_if", offered.item.pk), sent).context["sight"].forecast
    assert [(level.names, level.count) for level in said.levels] == [(("admin", "approver", "chief"), 3)]
    policy("small ones", ranges={"disk": (None, GIB)}, effect="auto")
    policy("large", ranges={"disk": (50 * GIB, None)}, effect="refuse", refusal="Too big.")
    page = client.post(url("what_if", offered.item.pk), sent)
    assert "the policy “small ones” approves it at once" in page.content.decode()
    page = client.post(url("what_if", offered.item.pk), sent | {"disk": "60"})
    assert page.context["form"].non_field_errors() == ["Too big."]
    page = client.post(url("ask", offered.item.pk), sent | {"disk": "60"})
    assert page.status_code == 422 and "Too big." in page.content.decode()


def test_no_room_is_told_as_no_room(client, cast, offered):
    host = Counter.objects.create(scope="host:1", resource="memory", limit=1, title="example-host")
    Counter.objects.filter(pk=host.pk).update(scope=offered_host().scope)
    page = client.post(url("what_if", offered.item.pk), typed(cast, offered))
    outlook = page.context["sight"].outlook
    assert outlook.place == "" and "not enough memory left for example-host" in outlook.warnings[0]


def offered_host():
    from portal.hosts.models import Host

    return Host.objects.get()


# Editing


def edit(client, cast, offered, operation, **changes):
    values = typed(cast, offered, **changes)
    hash_seen = changes.get("spec_hash", operation.spec_hash)
    return client.post(url("edit", operation.pk), values | {"spec_hash": hash_seen})


def test_an_edit_starts_from_what_was_asked(client, cast, offered):
    key = "ssh-ed25519 " + "A" * 68 + " me@example"
    data = "#cloud-config\nruncmd: [ls]\n"
    asked = ask(cast, offered, disk=GIB, ssh_keys=key, packages="nginx git", user_data=data)
    form = client.get(url("edit", asked.pk)).context["form"]
    assert form["disk"].value() == "1" and form["ssh_keys"].value() == key
    assert (form["packages"].value(), form["user_data"].value()) == ("nginx git", data)
    assert form["spec_hash"].value() == asked.spec_hash and form.fields["project"].disabled


def test_an_edit_through_the_page_makes_a_revision_and_may_keep_its_name(client, cast, offered):
    """Red when edit_machine_request does not leave out the request itself when it looks at names."""
    asked = ask(cast, offered, name="mine")
    answer = edit(client, cast, offered, asked, name="mine", disk="2")
    assert answer.status_code == 302, answer.context["form"].errors
    asked.refresh_from_db()
    assert (asked.revision, asked.frozen["sizes"]["disk"]) == (2, 2 * GIB)
    held = Counter.objects.get(scope=scopes.of_project(cast.project), resource="disk").held
    assert held == 2 * GIB


def test_a_renamed_request_is_called_so_and_frees_its_old_name(client, cast, offered):
    asked = ask(cast, offered, name="old")
    edit(client, cast, offered, asked, name="new")
    asked.refresh_from_db()
    assert asked.title == "Create new"
    ask(cast, offered, name="old")


def test_an_edit_of_what_changed_meanwhile_or_over_quota_changes_nothing(client, cast, offered):
    asked = ask(cast, offered)
    for changes, sentence in (
        ({"spec_hash": "0" * 64}, "changed since you opened it"),
        ({"disk": "101"}, "101 GiB asked, 100 GiB of 100 GiB left"),
    ):
        page = edit(client, cast, offered, asked, **changes)
        assert page.status_code == 422 and sentence in page.content.decode()
    asked.refresh_from_db()
    assert asked.revision == 1 and asked.reservations.get(counter__limit=100 * GIB).amount == 256 * MIB


def test_an_edit_of_a_request_that_was_lowered_meanwhile_shows_that_and_can_be_sent_again(
    client, cast, offered
):
    """Red when the form that is drawn again keeps the hash that was refused."""
    asked = ask(cast, offered, name="mine", disk=4 * GIB)
    revisions.lower(
        actor=cast.approver, operation=asked, spec_hash=asked.spec_hash, sizes={"disk": 2 * GIB}
    )
    page = edit(client, cast, offered, asked, name="mine", disk="3", why="kept")
    text = page.content.decode()
    assert page.status_code == 422 and "It changed while you edited it." in text
    assert "<del>4 GiB</del>" in text and "<ins>2 GiB</ins>" in text and 'value="kept"' in text
    seen = page.context["form"]["spec_hash"].value()
    again = edit(client, cast, offered, asked, name="mine", disk="3", spec_hash=seen)
    asked.refresh_from_db()
    assert again.status_code == 302 and asked.frozen["sizes"]["disk"] == 3 * GIB


def test_while_editing_the_request_itself_counts_as_left(client, cast, offered):
    """Red when look() forgets which request is edited."""
    asked = ask(cast, offered, disk=90 * GIB, name="mine")
    sent = typed(cast, offered, disk="100", name="mine", spec_hash=asked.spec_hash, operation=asked.pk)
    page = client.post(url("what_if", offered.item.pk), sent)
    assert not page.context["form"].errors
    assert page.context["sight"].outlook.quotas[0].left == "0 GiB"


def test_what_waits_no_more_cannot_be_edited_and_says_so(client, cast, offered):
    asked = ask(cast, offered)
    services.withdraw(actor=cast.requester, operation=asked)
    page = client.get(url("edit", asked.pk), follow=True)
    assert "already cancelled" in page.content.decode()


# Copying


def test_a_rejected_request_can_be_copied_and_its_name_is_free_again(client, cast, offered):
    asked = ask(cast, offered, name="web", why="first try")
    services.decide(
        actor=cast.approver, operation=asked, spec_hash=asked.spec_hash, approved=False, reason="no"
    )
    form = client.get(url("copy", asked.pk)).context["form"]
    assert (form["name"].value(), form["why"].value()) == ("web", "first try")
    assert form["token"].value() != asked.token


def test_a_copy_of_what_exists_gets_the_next_name(client, cast, offered):
    for name, following in (("web", "web-2"), ("node-9", "node-10"), ("db3", "db4")):
        asked = ask(cast, offered, name=name)
        assert client.get(url("copy", asked.pk)).context["form"]["name"].value() == following
    assert prefill.free_name("nobody-has-it") == "nobody-has-it"


def test_a_copy_says_what_is_not_offered_any_more(client, cast, offered):
    """Red when prefill takes a size or network that is gone."""
    asked = ask(cast, offered, lease_days=300)
    other = Flavour.objects.create(name="other", vcpus=2, memory=GIB, disk=GIB)
    offered.item.flavours.set([other])
    offered.item.networks.set([factories.make_network(78)])
    CatalogueItem.objects.update(longest_lease_days=100)
    page = client.get(url("copy", asked.pk))
    said = " ".join(page.context["notes"])
    for words in ("size small is not offered", "network gatehouse-example77 is not", "is 100 days now"):
        assert words in said
    form = page.context["form"]
    assert (form["flavour"].value(), form["lease_days"].value()) == (other.pk, 100)


def test_an_item_that_is_gone_says_so(client, cast, offered):
    asked = ask(cast, offered)
    CatalogueItem.objects.update(offered=False)
    for view in ("copy", "edit"):
        assert "Tiny is not offered any more." in client.get(url(view, asked.pk)).content.decode()
    with pytest.raises(Denied, match="not offered any more"):
        edit_machine_request(
            actor=cast.requester,
            operation=asked,
            wish=replace(factories.make_wish(offered), item=CatalogueItem.objects.get()),
            spec_hash=asked.spec_hash,
        )


# Looking at many


@pytest.mark.slow
def test_looking_at_many_requests_takes_as_many_queries_as_at_one(cast, offered):
    """Red when foresee asks anything inside its loop."""
    for number in range(25):
        ask(cast, offered, name=f"vm-{number}")
    waiting = list(Operation.objects.select_related("project", "requester"))
    looking = asking.AskingForMachines()
    with CaptureQueriesContext(connection) as one:
        looking.outlooks(waiting[:1])
    with CaptureQueriesContext(connection) as many:
        found = looking.outlooks(waiting)
    assert len(many) == len(one) <= 10
    assert {outlook.place for outlook in found.values()} == {"example-host"}


def test_a_machine_of_the_name_that_exists_meanwhile_is_a_warning(cast, offered):
    first = ask(cast, offered, name="twin")
    services.decide(
        actor=cast.approver, operation=first, spec_hash=first.spec_hash, approved=True
    )
    assert VirtualMachine.objects.get().name == "twin"
    Operation.objects.filter(pk=first.pk).update(title="Create elsewhere")
    VirtualMachine.objects.update(name="other")
    second = ask(cast, offered, name="twin")
    VirtualMachine.objects.update(name="twin")
    outlook = asking.AskingForMachines().outlooks([second])[second.pk]
    assert "A machine called twin exists meanwhile." in outlook.warnings
    assert second.state == State.AWAITING_APPROVAL
