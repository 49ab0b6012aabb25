"""Tickets for consoles, and the pages that hand them out."""

import threading
from datetime import timedelta

import pytest
from django.db import connection
from django.urls import reverse
from django.utils import timezone

from portal.core.errors import Denied
from tests.racing import race
from tests.vms.console.browser import LIMIT, issue
from vms.console import services
from vms.console.models import ConsoleTicket, Kind
from vms.models import Observed, Status, VirtualMachine

pytestmark = pytest.mark.database


# Tickets


def test_only_the_hash_of_a_ticket_is_kept(cast, machine):
    secret = issue(cast.requester, machine)
    kept = ConsoleTicket.objects.values().get()
    assert secret not in str(kept) and kept["secret_hash"] == services.hash_of(secret)


def test_a_ticket_is_good_once_for_one_person_machine_and_kind(cast, machine):
    """Red when `user_id`, `machine_id` or `kind` leaves the conditions of redeem_ticket."""
    secret, who, what = issue(cast.requester, machine), cast.requester.pk, machine.pk
    assert not services.redeem_ticket(secret, cast.operator.pk, what, "serial")
    assert not services.redeem_ticket(secret, who, what + 1, "serial")
    assert not services.redeem_ticket(secret, who, what, "vnc")
    assert not services.redeem_ticket(secret + "x", who, what, "serial")
    assert services.redeem_ticket(secret, who, what, "serial")
    assert not services.redeem_ticket(secret, who, what, "serial")


def test_an_old_ticket_is_no_good_and_is_forgotten(cast, machine):
    """Red when `expires_at__gt` leaves the conditions of redeem_ticket."""
    secret = issue(cast.requester, machine)
    ConsoleTicket.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert not services.redeem_ticket(secret, cast.requester.pk, machine.pk, "serial")
    issue(cast.requester, machine)
    assert ConsoleTicket.objects.count() == 1


def test_of_racing_readers_of_one_ticket_one_wins(trail_that_can_be_flushed, cast, machine):
    """Red when redeem_ticket reads the row and saves it instead of one UPDATE."""
    secret, ready = issue(cast.requester, machine), threading.Barrier(4)

    def last_moment(execute, sql, *rest):
        # Nobody writes before everybody who reads first has read.
        if sql.startswith("UPDATE"):
            ready.wait(LIMIT)
        return execute(sql, *rest)

    def redeem():
        with connection.execute_wrapper(last_moment):
            return services.redeem_ticket(secret, cast.requester.pk, machine.pk, "serial")

    assert sorted(race([redeem] * 4)) == [False] * 3 + [True]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"observed_state": Observed.SHUTOFF}, "switched off"),
        ({"observed_state": Observed.CRASHED}, "switched off"),
        ({"observed_state": Observed.PAUSED}, "paused"),
        ({"observed_state": Observed.UNKNOWN}, "not known"),
        ({"status": Status.BINNED}, "deleted"),
    ],
)
def test_a_machine_without_a_console_is_refused_with_words(cast, machine, changes, words):
    for name, value in changes.items():
        setattr(machine, name, value)
    with pytest.raises(Denied, match=words):
        issue(cast.requester, machine)


def test_who_may_not_use_the_machine_gets_no_ticket(cast, machine):
    """Red when issue_ticket asks for `view` in place of `use`."""
    issue(cast.operator, machine)
    for other in (cast.auditor, cast.approver):
        with pytest.raises(Denied, match="may not use"):
            issue(other, machine)


# Pages


@pytest.mark.parametrize("kind", Kind.values)
def test_a_page_is_for_who_may_use_the_machine(client, cast, machine, kind):
    url = reverse(f"console:{kind}", args=[machine.pk])
    for user, status in ((cast.requester, 200), (cast.operator, 200), (cast.auditor, 404)):
        client.force_login(user)
        assert client.get(url).status_code == status


def test_the_serial_page_allows_xterm_its_styles(client, cast, machine):
    client.force_login(cast.requester)
    response = client.get(reverse("console:serial", args=[machine.pk]))
    assert "'nonce-" in response.headers["Content-Security-Policy"]


def test_a_ticket_comes_by_post_alone_and_off_is_said(client, cast, machine):
    url = reverse("console:ticket", args=[machine.pk])
    client.force_login(cast.requester)
    assert client.get(url).status_code == 405
    answer = client.post(url, {"kind": "vnc"})
    assert answer.json()["url"] == reverse("console:vnc", args=[machine.pk])
    assert answer.json()["ticket"] not in answer.json()["url"]
    assert client.post(url, {"kind": "root"}).status_code == 409
    VirtualMachine.objects.update(observed_state=Observed.SHUTOFF)
    refused = client.post(url, {"kind": "vnc"})
    assert (refused.status_code, "switched off" in refused.json()["reason"]) == (409, True)
    client.force_login(cast.auditor)
    assert client.post(url, {"kind": "vnc"}).status_code == 404
