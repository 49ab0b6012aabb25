"""Networks that an admin allows in the browser: who may, which ones, what is said before, what follows."""

import ipaddress
from dataclasses import replace

import pytest
from django.urls import reverse

from portal.accounts.models import Membership, Role
from portal.audit.models import AuditEntry
from portal.core.errors import Denied
from portal.hosts.images import allowing, fetching, services
from portal.hosts.models import Image, ImportNetwork, Upload
from portal.operations import messages
from portal.operations.states import State
from tests.hosts.images.conftest import WANTED, files, imported
from tests.hosts.images.test_fetching import answers, site  # noqa: F401 a fixture
from tests.hosts.images.test_importing import begin, served  # noqa: F401 a fixture

pytestmark = [pytest.mark.database, pytest.mark.django_db]
WHY = "our mirror"


@pytest.fixture(autouse=True)
def nothing_installed(settings):
    settings.IMPORT_NETWORKS = []


def allow(actor, network="10.20.0.0/16", reason=WHY, agreed=None):
    told = network if agreed is None else agreed
    return allowing.allow(actor=actor, network=network, reason=reason, agreed=told)


def refused(actor, network, **told):
    with pytest.raises(Denied) as denied:
        allow(actor, network, **told)
    assert not isinstance(denied.value, allowing.Unconfirmed)
    return denied.value


def verbs():
    found = AuditEntry.objects.filter(verb__startswith="image.network").order_by("pk")
    return list(found.values_list("verb", "target_name", "before", "after"))


def test_what_is_allowed_and_taken_back_stands_in_the_trail(chief):
    """Red when a change is not recorded, or not in its transaction."""
    made = allow(chief, "fd12:3456::/32", reason="  our \n mirror ")
    assert (made.network, made.reason, made.person) == ("fd12:3456::/32", WHY, chief)
    assert allowing.opened() == [ipaddress.ip_network("fd12:3456::/32")]
    allowing.take_back(actor=chief, network=made, confirm_name="fd12:3456::/32")
    told = {"network": "fd12:3456::/32", "reason": WHY}
    assert verbs() == [
        ("image.network_allowed", "fd12:3456::/32", None, told),
        ("image.network_taken_back", "fd12:3456::/32", told, None),
    ]
    assert allowing.opened() == []


@pytest.mark.parametrize("role", ["requester", "approver", "operator", "auditor", "admin"])
def test_only_an_admin_of_every_project_allows_and_takes_back(chief, cast, role):
    """Red when the service does not ask for the right in every project."""
    made, person = allow(chief), getattr(cast, role)
    with pytest.raises(Denied, match="may not allow networks"):
        allow(person, "10.30.0.0/16")
    with pytest.raises(Denied, match="may not remove allowed networks"):
        allowing.take_back(actor=person, network=made, confirm_name=made.network)
    assert ImportNetwork.objects.count() == 1


@pytest.mark.parametrize("agreed", ["", "10.30.0.0/16", "10.20.0.0/1", "yes"])
def test_nothing_is_allowed_before_somebody_agreed_to_that_very_network(chief, agreed):
    """Red when any word agrees, or what was agreed to for another network counts."""
    with pytest.raises(allowing.Unconfirmed) as asked:
        allow(chief, agreed=agreed)
    assert "65,536" in asked.value.effects[0] and asked.value.network == "10.20.0.0/16"
    assert not ImportNetwork.objects.exists() and verbs() == []


def test_what_follows_names_what_stays_closed_and_what_is_there_already(chief):
    allow(chief, "100.64.3.0/24")
    with pytest.raises(allowing.Unconfirmed) as asked:
        allow(chief, "100.64.0.0/10", agreed="")
    told = " ".join(asked.value.effects)
    assert "Still closed in it: 100.100.100.200" in told and "when this is removed: 100.64.3.0/24" in told
    with pytest.raises(allowing.Unconfirmed) as asked:
        allow(chief, "fc00::/7", agreed="")
    assert "2^121" in asked.value.effects[0] and "fd00:ec2::254" in " ".join(asked.value.effects)
    with pytest.raises(allowing.Unconfirmed, match="Nothing is allowed yet") as asked:
        allow(chief, "10.1.1.1", agreed="")
    assert asked.value.network == "10.1.1.1/32" and "one address" in asked.value.effects[0]


@pytest.mark.parametrize(
    ("network", "words"),
    [
        ("a mirror", "This is no network"),
        ("mirror.example.org", "This is no network"),
        ("10.20.0.0/33", "This is no network"),
        ("", "This is no network"),
        ("10.20.3.4/16", "The network is 10.20.0.0/16; that address alone is 10.20.3.4/32"),
        ("fd12::1/32", "The network is fd12::/32; that address alone is fd12::1/128"),
        ("0.0.0.0/0", "too wide"),
        ("::/0", "too wide"),
        ("0.0.0.0/1", "too wide"),
        ("10.0.0.0/7", "too wide"),
        ("192.0.0.0/8", "too wide"),
        ("168.0.0.0/6", "too wide"),
        ("f000::/4", "too wide"),
        ("127.0.0.0/8", "own machine"),
        ("127.0.0.1/32", "own machine"),
        ("0.0.0.0/8", "own machine"),
        ("0.0.0.0/32", "own machine"),
        ("::1/128", "own machine"),
        ("::/128", "own machine"),
        ("169.254.0.0/16", "clouds tell"),
        ("169.254.169.254/32", "clouds tell"),
        ("fe80::/10", "clouds tell"),
        ("fe80::/64", "clouds tell"),
        ("fd00:ec2::254/128", "clouds tell"),
        ("100.100.100.200/32", "clouds tell"),
        ("8.8.8.0/24", "is public"),
        ("2606:4700::/32", "is public"),
        ("224.0.0.0/4", "no private network"),
        ("240.0.0.0/4", "no private network"),
        ("255.255.255.255/32", "no private network"),
        ("ff00::/8", "no private network"),
        ("fec0::/10", "no private network"),
        ("2001:db8::/32", "no private network"),
        ("::ffff:10.0.0.0/104", "no private network"),
        ("::ffff:127.0.0.1/128", "no private network"),
        ("64:ff9b::/96", "no private network"),
        ("198.18.0.0/15", "no private network"),
    ],
)
def test_what_is_none_or_must_stay_closed_is_refused_with_the_reason(chief, network, words):
    """Red when anything but a private network is taken, or the reason is not that of the network."""
    denied = refused(chief, network)
    assert words in denied.reason and denied.field == "network"
    assert not ImportNetwork.objects.exists()


@pytest.mark.parametrize(
    "network", ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"]
)
def test_a_whole_private_network_is_the_widest_that_is_taken(chief, network):
    assert allow(chief, network).network == network


@pytest.mark.parametrize("reason", ["", "  \n ", "x" * 201])
def test_a_reason_is_needed(chief, reason):
    denied = refused(chief, "10.20.0.0/16", reason=reason)
    assert denied.field == "reason" and "Say why" in denied.reason


@pytest.mark.parametrize("network", ["10.20.0.0/16", "10.20.7.0/24", "10.20.0.1/32"])
def test_what_is_allowed_already_is_refused_and_says_by_whom(chief, network):
    allow(chief)
    denied = refused(chief, network)
    assert "chief" in denied.reason and WHY in denied.reason and "10.20.0.0/16" in denied.reason
    assert ImportNetwork.objects.count() == 1


def test_another_way_of_writing_it_is_the_same_network(chief):
    """Red when networks are compared as they are typed."""
    allow(chief, "FD12:0:0::/32", agreed="fd12::/32")
    assert refused(chief, "fd12:0000::/32", agreed="fd12::/32").field == "network"


def test_what_the_installation_allows_is_not_allowed_again(chief, settings):
    settings.IMPORT_NETWORKS = [ipaddress.ip_network("10.0.0.0/8")]
    assert "settings allow this already: they name 10.0.0.0/8" in refused(chief, "10.20.0.0/16").reason


def test_a_wider_one_is_taken_and_each_goes_by_itself(chief, settings):
    settings.IMPORT_NETWORKS = [ipaddress.ip_network("10.9.0.0/16")]
    inner, outer = allow(chief, "10.20.0.0/16"), allow(chief, "10.0.0.0/8")
    assert "Of it stays allowed: 10.9.0.0/16, 10.20.0.0/16." in allowing.still_allowed(outer)
    assert "within 10.0.0.0/8" in allowing.still_allowed(inner)[0]
    allowing.take_back(actor=chief, network=outer, confirm_name="10.0.0.0/8")
    assert allowing.still_allowed(inner) == [] and allowing.opened() == [ipaddress.ip_network("10.20.0.0/16")]


def test_somebody_who_is_later_is_told(chief, monkeypatch):
    """Red when the database's word, that there is one already, is an error of the portal's."""
    made = allow(chief)
    monkeypatch.setattr(allowing, "_check_known", lambda wanted, rows: None)
    assert "meanwhile" in refused(chief, "10.20.0.0/16").reason
    with pytest.raises(Denied, match="not the network"):
        allowing.take_back(actor=chief, network=made, confirm_name="10.20.0.0")
    allowing.take_back(actor=chief, network=made, confirm_name=made.network)
    made.pk = 1 << 40
    with pytest.raises(Denied, match="meanwhile"):
        allowing.take_back(actor=chief, network=made, confirm_name=made.network)


def test_there_are_no_more_than_anybody_reads(chief, monkeypatch):
    monkeypatch.setattr(allowing, "MOST", 1)
    allow(chief)
    assert "There are 1 already" in refused(chief, "10.30.0.0/16").reason


@pytest.fixture
def mirror(served, settings, monkeypatch):  # noqa: F811
    """The site at a private address, 10.20.0.5, by the name of `url`."""
    settings.IMPORT_NETWORKS = []
    real = fetching._connect
    there = [("127.0.0.1", served.port)]
    monkeypatch.setattr(
        fetching, "_connect", lambda found, timeout: real([(*found[0][:-1], there[0])], timeout)
    )
    served.url = f"http://mirror.example:{served.port}/file"
    answers(monkeypatch, *[["10.20.0.5"]] * 9)
    return served


def test_an_import_is_refused_until_an_admin_allows_its_network(chief, uploads, pool, mirror, client):
    """Red when Take does not tell a fetch what admins allow, or whoever reads why is not led there."""
    operation = begin(chief, mirror)
    assert imported(operation) == (State.FAILED, ["fetch_private"]) and mirror.asked == []
    raw = operation.steps.get(error_code="fetch_private").error_raw
    assert "10.20.0.5" in raw and "An admin of every" in messages.sentence("fetch_private", raw)
    client.force_login(chief)
    page = client.get(reverse("operations:detail", args=[operation.pk])).content.decode()
    assert "An admin of every project can allow its network" in page
    assert f'href="{reverse("vms:import_networks")}"' in page
    made = allow(chief)
    upload = Upload.objects.get()
    assert imported(services.retry(actor=chief, upload=upload)) == (State.SUCCEEDED, [])
    assert Image.objects.count() == 1 and files(uploads) == [".fetched", ".qcow2"]
    allowing.take_back(actor=chief, network=made, confirm_name=made.network)
    again = services.begin_import(
        actor=chief, wanted=replace(WANTED, version="2"), address=mirror.url, sha256="0" * 64
    )
    assert imported(again) == (State.FAILED, ["fetch_private"])


def test_who_cannot_allow_it_is_not_led_there(chief, cast, uploads, pool, mirror, client, django_user_model):
    """Red when the link stands there for everybody who sees the operation."""
    operation = begin(chief, mirror)
    imported(operation)
    olga = django_user_model.objects.create(username="olga")
    Membership.objects.create(user=olga, role=Role.OPERATOR)
    client.force_login(olga)
    page = client.get(reverse("operations:detail", args=[operation.pk])).content.decode()
    assert "An admin of every project can allow its network" in page
    assert reverse("vms:import_networks") not in page


def test_the_pages_ask_before_they_allow_and_before_they_remove(chief, client, settings):
    """Red when the first press allows it, or the installation's can be removed there."""
    settings.IMPORT_NETWORKS = [ipaddress.ip_network("10.9.0.0/16")]
    client.force_login(chief)
    shown, add = reverse("vms:import_networks"), reverse("vms:import_network_add")
    assert shown in client.get(reverse("vms:images")).content.decode()
    assert shown in client.get(reverse("vms:image_fetch")).content.decode()
    told = {"network": "10.20.0.0/16", "reason": "<b>our</b> mirror"}
    asked = client.post(add, told)
    page = asked.content.decode()
    assert asked.status_code == 200 and "65,536" in page and 'name="agreed" value="10.20.0.0/16"' in page
    assert not ImportNetwork.objects.exists()
    wrong = client.post(add, told | {"network": "10.20.0.1/16"})
    assert wrong.status_code == 422 and "The network is 10.20.0.0/16" in wrong.content.decode()
    assert client.post(add, told | {"agreed": "10.20.0.0/16"}).status_code == 302
    made = ImportNetwork.objects.get()
    page = client.get(shown).content.decode()
    assert "10.20.0.0/16" in page and "&lt;b&gt;our" in page and "chief" in page
    assert "10.9.0.0/16" in page and "Given by the installation" in page
    assert page.count('class="row-name"') == 1
    one = reverse("vms:import_network", args=[made.pk])
    assert client.post(one, {"confirm_name": "10.20.0.0"}).status_code == 422
    assert client.post(one, {"confirm_name": made.network}).status_code == 302
    assert not ImportNetwork.objects.exists() and client.get(one).status_code == 404
