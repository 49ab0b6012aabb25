"""A host by SSH: its key is fetched, looked at and confirmed before anything connects to it."""

import pytest
from django.urls import reverse

from portal.audit.models import AuditEntry
from portal.core.errors import Denied
from portal.drivers import ssh
from portal.drivers.errors import CallTimeout, HostKeyUnconfirmed, HostUnreachable, NameUnknown, NoIdentity
from portal.drivers.observations import HostLost
from portal.hosts import greeting, services
from portal.hosts.connections import connection_uri
from portal.hosts.joining import _render, joinings
from portal.hosts.keys import ensure_key
from portal.hosts.models import Host
from portal.hosts.observations import note
from portal.hosts.readiness import report
from portal.hosts.watcher import _addresses
from portal.operations.messages import OTHER, sentence
from portal.operations.models import Operation
from portal.operations.states import State
from tests.factories import HOST_KEY, make_host, make_ssh_host
from tests.hosts.conftest import carry_out

pytestmark = [pytest.mark.database, pytest.mark.django_db, pytest.mark.usefixtures("own_state")]

OTHER_KEY = HOST_KEY[:-1] + "N"
SEEN = ssh.fingerprint(HOST_KEY)


def enrol(chief, uri="qemu+ssh://gate@rack-1/system"):
    return services.enrol_host(actor=chief, name="rack-1", uri=uri, pool_path="/srv/gatehouse")


def test_a_new_host_shows_its_key_and_nothing_connects(chief, monkeypatch):
    """Red when enrol_host begins the enrolment of an SSH host at once, or the watcher takes every host."""
    monkeypatch.setattr(ssh, "fetch_host_key", lambda address: HOST_KEY)
    operation = enrol(chief)
    assert operation.kind == "hosts.greet"
    assert carry_out(operation).state == State.SUCCEEDED
    host = Host.objects.get()
    assert (host.offered_fingerprint, host.host_key) == (SEEN, "")
    with pytest.raises(HostKeyUnconfirmed):
        connection_uri(host)
    assert _addresses() == {}
    with pytest.raises(Denied, match="Confirm the host's key"):
        services.enrol_again(actor=chief, host=host)


def test_the_key_is_confirmed_by_the_fingerprint_that_was_seen(chief):
    """Red when confirm_host_key does not compare, or takes the key without writing it down."""
    host = make_ssh_host()
    for seen in ("", "SHA256:another", ssh.fingerprint(OTHER_KEY)):
        with pytest.raises(Denied, match="another key"):
            services.confirm_host_key(actor=chief, host=host, fingerprint=seen)
    ensure_key(chief)
    operation = services.confirm_host_key(actor=chief, host=host, fingerprint=SEEN)
    host.refresh_from_db()
    assert operation.kind == "hosts.enrol" and host.host_key == HOST_KEY and not host.offered_fingerprint
    entry = AuditEntry.objects.get(verb="host.key_confirmed")
    assert entry.after == {"fingerprint": SEEN}
    assert operation.frozen["pinned"]["pool"]["path"] == "/srv/gatehouse"
    program, target, folder = ssh.command(connection_uri(host))
    assert target[-1] == "example-ssh.invalid"
    assert (folder / "key").read_text() == ensure_key(chief).private.open()
    assert list(_addresses().values()) == [host.pk]
    with pytest.raises(Denied, match="no host key to confirm"):
        services.confirm_host_key(actor=chief, host=host, fingerprint=SEEN)


def test_a_changed_key_waits_until_it_is_confirmed_anew(chief, monkeypatch):
    """Red when what is fetched later takes the place of the confirmed key."""
    ensure_key(chief)
    host = make_ssh_host(host_key=HOST_KEY, accelerator="qemu")
    before = connection_uri(host)
    monkeypatch.setattr(ssh, "fetch_host_key", lambda address: OTHER_KEY)
    carry_out(services.greet_host(actor=chief, host=host))
    host.refresh_from_db()
    assert connection_uri(host) == before
    changed = ssh.fingerprint(OTHER_KEY)
    assert services.confirm_host_key(actor=chief, host=host, fingerprint=changed) is None
    host.refresh_from_db()
    assert connection_uri(host) != before
    entry = AuditEntry.objects.get(verb="host.key_confirmed")
    assert (entry.before["fingerprint"], entry.after["fingerprint"]) == (SEEN, changed)


@pytest.mark.parametrize(
    ("trouble", "code"),
    [
        (NameUnknown("x"), "name_unknown"),
        (CallTimeout("x"), "call_timeout"),
        (HostUnreachable("x"), "ssh_absent"),
    ],
)
def test_a_host_that_shows_no_key_says_why(chief, monkeypatch, trouble, code):
    def fails(address):
        raise trouble

    monkeypatch.setattr(greeting.ssh, "fetch_host_key", fails)
    operation = carry_out(enrol(chief))
    assert operation.state == State.FAILED
    assert operation.steps.get(name="host_key").error_code == code
    host = Host.objects.get()
    assert joinings([host])[0].failed
    assert services.greet_host(actor=chief, host=host).frozen["pinned"]["pool"]["path"] == "/srv/gatehouse"


def test_each_refusal_has_a_sentence_of_its_own():
    codes = ["host_unreachable", "name_unknown", "ssh_absent", "key_refused", "host_key_changed"]
    codes += ["host_key_unconfirmed", "libvirt_absent", "libvirt_refused", "no_identity", "call_timeout"]
    sentences = {sentence(code) for code in codes}
    assert len(sentences) == len(codes) and str(OTHER) not in sentences


def test_a_stale_host_says_on_its_page_what_to_do(chief):
    """Red when the watcher's code is not written, or the page shows the raw text alone."""
    host = make_ssh_host(host_key=HOST_KEY, observed_at=None)
    note(host.pk, HostLost(10.0, 0, "ssh: Permission denied (publickey).", "key_refused"))
    host.refresh_from_db()
    finding = report(host)[0]
    assert finding.tone == "bad" and "authorized_keys" in finding.mend
    assert "publickey" in finding.evidence


def test_without_the_encryption_key_the_host_is_not_watched(chief, settings, tmp_path):
    ensure_key(chief)
    host = make_ssh_host(host_key=HOST_KEY)
    make_host()
    settings.ENCRYPTION_KEYS = tmp_path / "another"
    with pytest.raises(NoIdentity):
        connection_uri(host)
    assert list(_addresses()) == ["fake:///"]


def test_the_watcher_asks_the_same_for_many_hosts(chief, django_assert_num_queries):
    """Red when each host asks for the portal's key anew."""
    ensure_key(chief)
    for number in range(3):
        make_ssh_host(f"example-{number}", host_key=HOST_KEY)
    with django_assert_num_queries(2):
        assert len(_addresses()) == 3


def test_the_page_leads_from_the_key_to_the_enrolment(client, chief):
    client.force_login(chief)
    host = make_ssh_host()
    ensure_key(chief)
    page = client.get(reverse("hosts:join", args=[host.pk])).content.decode()
    assert SEEN in page and "restrict,port-forwarding ssh-ed25519" in page and "of <strong>gate" in page
    refused = client.post(reverse("hosts:confirm", args=[host.pk]), {"fingerprint": "SHA256:x"}, follow=True)
    assert "another key" in refused.content.decode()
    page = client.post(reverse("hosts:confirm", args=[host.pk]), {"fingerprint": SEEN}, follow=True)
    assert "Reach the host" in page.content.decode() and SEEN not in page.content.decode()
    assert Operation.objects.filter(kind="hosts.enrol", state=State.QUEUED).exists()


def test_the_live_piece_is_for_admins_and_asks_the_same_for_many(
    chief, cast, django_assert_num_queries
):
    one, two = make_ssh_host(), make_ssh_host("example-two")
    assert set(_render(chief, [str(one.pk), str(two.pk), "x"])) == {str(one.pk), str(two.pk)}
    assert _render(cast.admin, [str(one.pk)]) == {}
    for count in (1, 2):
        with django_assert_num_queries(3):
            joinings([one, two][:count])
