"""Networks as an admin adds, names and removes them, and what must never reach a host."""

import uuid

import pytest

from networks import services
from networks.models import Network, Port
from networks.services import Wanted
from portal.accounts.models import Membership
from portal.audit.models import AuditEntry
from portal.core.errors import Denied
from portal.drivers.fake import FakeDriver
from portal.operations.models import Operation
from portal.operations.registry import StepContext, kind_of
from tests import factories

pytestmark = [pytest.mark.database, pytest.mark.django_db]
LAB = {"name": "lab", "title": "Laboratory", "kind": "nat", "subnet": "192.168.150.0/24"}


@pytest.fixture
def admin(cast):
    """Somebody who administers every project."""
    Membership.objects.create(user=cast.admin, role="admin", project=None)
    return cast.admin


@pytest.fixture
def page(client, chief):
    client.force_login(chief)
    return client


def test_a_network_is_added_with_a_gateway_a_range_and_a_bridge(page):
    """Red when the gateway lies in the range, or hosts would be told what the page did not say."""
    answer = page.post("/networks/add/", LAB)
    network = Network.objects.get(name="lab")
    assert answer.url == f"/networks/{network.pk}/"
    spec = network.spec
    assert (spec.name, spec.bridge) == ("gatehouse-lab", "gh-lab")
    assert (spec.address, spec.prefix) == ("192.168.150.1", 24)
    assert (spec.dhcp_start, spec.dhcp_end, spec.nat) == ("192.168.150.2", "192.168.150.254", True)
    FakeDriver().ensure_network(spec)  # the contract's own checks
    assert AuditEntry.objects.filter(verb="network.added").count() == 1
    assert "192.168.150.1/24" in page.get(answer.url).content.decode()


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("isolated", {"subnet": "10.9.0.5/24", "dhcp_start": "10.9.0.100", "dhcp_end": "10.9.0.200"}),
        ("bridge", {"bridge": "br0"}),
        ("user", {}),
    ],
)
def test_each_kind_takes_what_it_needs(chief, kind, more):
    """Red when a LAN gets addresses, or a gateway in the middle of the subnet is lost."""
    network = services.add_network(actor=chief, wanted=Wanted("other", "Other", kind, **more))
    spec = network.spec
    assert (spec.host_bridge, spec.user) == (kind == "bridge", kind == "user")
    assert spec.address == ("10.9.0.5" if kind == "isolated" else "")
    if kind != "user":
        FakeDriver().ensure_network(spec)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"name": "a<b"}, "small letters"),
        ({"name": "-a"}, "small letters"),
        ({"name": "a" * 41}, ""),
        ({"title": " "}, ""),
        ({"subnet": ""}, "192.168.150.0/24"),
        ({"subnet": "nonsense"}, "192.168.150.0/24"),
        ({"subnet": "8.8.8.0/24"}, "not private"),
        ({"subnet": "127.0.0.0/24"}, "not private"),
        ({"subnet": "169.254.1.0/24"}, "not private"),
        ({"subnet": "10.0.0.0/8"}, "/16"),
        ({"subnet": "192.168.150.0/31"}, "/16"),
        ({"subnet": "10.213.77.128/25"}, "overlaps"),
        ({"subnet": "192.168.150.255/24"}, "broadcast"),
        ({"dhcp_start": "192.168.150.90", "dhcp_end": "192.168.150.10"}, "smaller address first"),
        ({"dhcp_start": "192.168.151.10"}, "inside"),
        ({"subnet": "192.168.150.20/24", "dhcp_start": "192.168.150.10"}, "holds the gateway"),
        ({"dhcp_start": "1;reboot"}, "192.168.150.10"),
        ({"bridge": "br 0"}, "15 letters"),
        ({"bridge": "gttbr77"}, "belongs to"),
        ({"kind": "bridge", "bridge": ""}, "15 letters"),
        ({"kind": "bridge", "bridge": "gttbr77"}, "belongs to"),
        ({"kind": "macvtap"}, ""),
        ({"name": "example77"}, "of this name"),
    ],
)
def test_what_a_host_must_not_be_told_is_refused_with_a_sentence(page, changes, sentence):
    """Red when any one check of networks.addressing is left out."""
    factories.make_network(77)
    answer = page.post("/networks/add/", {**LAB, **changes})
    assert answer.status_code == 422, changes
    assert sentence in answer.content.decode()
    assert Network.objects.count() == 1


def test_only_an_admin_of_everything_changes_networks(cast, chief):
    network = factories.make_network()
    for actor in (cast.requester, cast.operator):
        with pytest.raises(Denied):
            services.add_network(actor=actor, wanted=Wanted(**LAB))
        with pytest.raises(Denied):
            services.rename_network(actor=actor, network=network, title="Mine")
        with pytest.raises(Denied):
            services.remove_network(actor=actor, network=network, confirm_name=network.name)


def test_a_network_in_use_stays_and_says_why(page, chief):
    """Red when the cards on it are not counted."""
    network = factories.make_network()
    host = factories.make_host()
    Port.objects.create(network=network, host=host, domain_uuid=uuid.uuid4(), mac="52:54:00:00:00:01")
    assert "1 network cards" in page.get(f"/networks/{network.pk}/").content.decode()
    page.post(f"/networks/{network.pk}/remove/", {"confirm_name": network.name})
    assert Network.objects.filter(pk=network.pk).exists()


def test_a_removed_network_leaves_the_hosts_that_made_it(page, chief, monkeypatch):
    """Red when the row goes and the host keeps the network, or the name is not asked for."""
    network = factories.make_network()
    host = factories.make_host()
    driver = FakeDriver()
    driver.ensure_network(network.spec)
    page.post(f"/networks/{network.pk}/remove/", {"confirm_name": "other"})
    assert Network.objects.exists()
    page.post(f"/networks/{network.pk}/remove/", {"confirm_name": network.name})
    assert not Network.objects.exists()
    operation = Operation.objects.get(kind="networks.remove")
    assert operation.lane == host.scope
    monkeypatch.setattr("portal.hosts.steps.call", lambda _h, verb, *a, timeout=0: getattr(driver, verb)(*a))
    for step in kind_of("networks.remove").steps:
        step.do(StepContext(operation.frozen, operation.identifiers, lambda: None))
    assert driver.list_networks() == ()
    assert AuditEntry.objects.filter(verb="network.removed").exists()


def test_a_title_is_changed_and_the_rest_stays(page):
    network = factories.make_network()
    assert page.post(f"/networks/{network.pk}/rename/", {"title": "Behind the rack"}).status_code == 302
    network.refresh_from_db()
    assert network.title == "Behind the rack"
    assert page.post(f"/networks/{network.pk}/rename/", {"title": ""}).status_code == 422
