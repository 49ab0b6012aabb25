"""The pages of hosts and networks, and what addresses are refused."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from portal.accounts.models import Membership, Role, User
from portal.core.errors import Denied
from portal.hosts import services
from portal.hosts.addresses import check_pool_path, check_uri
from portal.hosts.live import _render
from portal.hosts.models import Health, Host
from portal.operations.models import Operation
from tests.factories import make_host, make_network, make_place

pytestmark = [pytest.mark.database, pytest.mark.django_db]


@pytest.fixture
def everywhere(cast):
    """Return somebody who holds a role in every project."""

    def make(role):
        person = User.objects.create(username=f"every-{role}")
        Membership.objects.create(user=person, role=role)
        return person

    return make


@pytest.fixture
def host(db):
    made = make_host(
        readiness={
            "host": {"libvirt_version": 9000000, "hypervisor": "QEMU", "hypervisor_version": 7002022},
            "arch": "x86_64",
            "cpu_model": "<i>EPYC</i>",
            "cpu_vendor": "AMD",
            "virtualization_flag": "svm",
            "kvm_offered": True,
            "iommu": None,
            "security_models": ["none", "dac"],
        },
        proof="KVM: silent\nEMULATION: <b>spoke</b>",
    )
    make_place(made)
    return made


PAGES = ("hosts:list", "hosts:detail", "hosts:add", "networks:list")


@pytest.mark.parametrize("role", Role.values)
@pytest.mark.parametrize("page", PAGES)
def test_pages_are_for_those_who_operate_everywhere(client, everywhere, host, role, page):
    """Red when a view does not ask for the role in every project."""
    url = reverse(page, args=[host.pk] if page == "hosts:detail" else [])
    allowed = {Role.ADMIN} if page == "hosts:add" else {Role.OPERATOR, Role.ADMIN}
    client.force_login(User.objects.get(username=role))
    assert client.get(url).status_code == 404
    client.force_login(everywhere(role))
    assert client.get(url).status_code == (200 if role in allowed else 404)


@pytest.mark.parametrize("action", ["maintenance", "prove"])
def test_changes_are_for_those_who_may(client, everywhere, cast, host, action):
    url = reverse(f"hosts:{action}", args=[host.pk])
    client.force_login(cast.admin)
    assert client.post(url, {"on": "1", "reason": "disk"}).status_code == 404
    client.force_login(everywhere(Role.OPERATOR))
    assert client.get(url).status_code == 405
    client.post(url, {"on": "1", "reason": "disk"})
    host.refresh_from_db()
    assert host.maintenance is (action == "maintenance")
    assert not Operation.objects.exists()


def test_maintenance_needs_a_reason_and_ends(client, everywhere, host):
    client.force_login(everywhere(Role.OPERATOR))
    url = reverse("hosts:maintenance", args=[host.pk])
    assert client.post(url, {"on": "1", "reason": " "}).status_code == 422
    client.post(url, {"on": "1", "reason": "new disk"})
    assert b"new disk" in client.get(reverse("hosts:detail", args=[host.pk])).content
    client.post(url)
    host.refresh_from_db()
    assert not host.maintenance and host.maintenance_reason == ""


def test_the_report_says_what_is_wrong_and_trusts_no_text_of_the_host(client, everywhere, host):
    client.force_login(everywhere(Role.ADMIN))
    page = client.get(reverse("hosts:detail", args=[host.pk])).content.decode()
    assert "Offered, not proven" in page and "Emulated processor" in page
    assert "&lt;b&gt;spoke" in page and "<b>spoke" not in page and "<i>EPYC" not in page
    Host.objects.update(observed_health=Health.STALE, observed_reason="no route")
    page = client.get(reverse("hosts:detail", args=[host.pk])).content.decode()
    assert "Does not answer" in page and "no route" in page
    Host.objects.update(observed_health=Health.UP, observed_at=timezone.now() - timezone.timedelta(hours=1))
    assert b"Not watched" in client.get(reverse("hosts:list")).content


def test_an_admin_adds_a_host_and_proves_it_again(client, everywhere):
    client.force_login(everywhere(Role.ADMIN))
    asked = {"name": "rack-1", "uri": "qemu:///system", "pool_path": "/srv/gh"}
    refused = client.post(reverse("hosts:add"), asked | {"uri": "qemu:///system?command=id"})
    assert refused.status_code == 422 and not Host.objects.exists()
    client.post(reverse("hosts:add"), asked)
    host = Host.objects.get()
    operation = Operation.objects.get()
    assert operation.kind == "hosts.enrol" and operation.subject == host.topic
    assert operation.frozen["pinned"]["pool"]["path"] == "/srv/gh"
    assert client.post(reverse("hosts:add"), asked).status_code == 422
    Operation.objects.update(state="failed")
    client.post(reverse("hosts:prove", args=[host.pk]))
    assert Operation.objects.order_by("-pk")[0].frozen["pinned"]["pool"]["path"] == "/srv/gh"


def test_the_list_asks_the_same_for_many_hosts(client, everywhere, host):
    """Red when a row asks for its own pools, counters or machines."""
    operator = everywhere(Role.OPERATOR)
    client.force_login(operator)

    def asked():
        with CaptureQueriesContext(connection) as page:
            client.get(reverse("hosts:list"))
        with CaptureQueriesContext(connection) as rows:
            _render(operator, [str(pk) for pk in Host.objects.values_list("pk", flat=True)])
        return len(page), len(rows)

    make_place(host)
    asked()
    one = asked()
    for number in range(20):
        make_place(make_host(f"host-{number}", f"fake:///{number}"))
    assert asked() == one


def test_the_live_row_is_for_those_who_may_see_it(everywhere, cast, host):
    """Red when the panel does not restrict."""
    assert list(_render(everywhere(Role.OPERATOR), [str(host.pk), "x", "99999"])) == [str(host.pk)]
    assert _render(cast.operator, [str(host.pk)]) == {}


def test_networks_show_addresses_and_ports(client, everywhere):
    make_network()
    make_network(78, kind="bridge", address=None, dhcp_start=None, dhcp_end=None)
    client.force_login(everywhere(Role.OPERATOR))
    page = client.get(reverse("networks:list")).content.decode()
    assert "10.213.77.1/24" in page and "by the LAN" in page


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "qemu",
        "qemu:///system?command=/bin/sh",
        "qemu+ssh://root@rack/system?netcat=/tmp/x",
        "qemu+ssh://root@rack/system?proxy=native",
        "qemu+ssh://root@rack/system#x",
        "qemu+ssh://-oProxyCommand=id/system",
        "qemu+ssh://-l@rack/system",
        "qemu+ssh://a@-oProxyCommand=id/system",
        "qemu+ssh://root@rack;id/system",
        "qemu+ssh://root@rack/system\n",
        "qemu+ssh://root@rack/session",
        "qemu+ext:///system",
        "qemu+unix:///system?socket=/tmp/x",
        "qemu+tcp://rack/system",
        "test:///etc/../x.xml",
        "test:///tmp/x.xml",
        "lxc:///",
        "QEMU:///system",
        " qemu:///system",
    ],
)
def test_an_address_that_could_run_something_is_refused(everywhere, uri):
    """Red when check_uri uses match for fullmatch, or allows a query."""
    with pytest.raises(Denied):
        check_uri(uri)
    with pytest.raises(Denied):
        services.enrol_host(actor=everywhere(Role.ADMIN), name="x", uri=uri, pool_path="/srv/gh")
    assert not Host.objects.exists()


@pytest.mark.parametrize(
    "uri", ["qemu:///system", "qemu+ssh://root@rack-1/system", "qemu+ssh://10.0.0.1:2222/system"]
)
def test_plain_addresses_pass(uri):
    assert check_uri(uri) == uri


@pytest.mark.parametrize(
    "path", ["", "/", "srv", "/srv/../etc", "/srv//x", "/srv/", "/srv x", "/srv/.x", "/a\n"]
)
def test_a_folder_that_is_no_plain_one_is_refused(path):
    with pytest.raises(Denied):
        check_pool_path(path)
    assert check_pool_path("/var/lib/gatehouse") == "/var/lib/gatehouse"
