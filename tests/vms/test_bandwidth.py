"""Limits of network cards: what may be set, by whom, what is seen of them, and what becomes of them."""

import pytest
from django.urls import reverse as url
from django.utils import timezone

from networks.models import Network, Port
from portal.core.errors import Denied
from portal.core.stale import Changed
from portal.drivers.errors import DeviceNotFound, DomainNotFound, NoShaping, NotSupported
from portal.drivers.types import BANDWIDTH, MOST_BANDWIDTH
from portal.hosts import steps
from portal.operations import messages
from portal.operations.models import Operation
from portal.operations.registry import StepContext, StepFailed
from tests.factories import make_network
from tests.vms.test_cards import MAC, finish, machine, offered, see, told  # noqa: F401 (fixtures)
from vms import noted
from vms.changes.devices import bandwidth

pytestmark = [pytest.mark.database, pytest.mark.django_db]
NONE = dict.fromkeys(BANDWIDTH, 0)
SOME = {"inbound": {"average": 2560, "peak": 5120, "burst": 1024}, "outbound": {"average": 128}}
WANTED = {
    **NONE,
    "inbound_average": 2560,
    "inbound_peak": 5120,
    "inbound_burst": 1024,
    "outbound_average": 128,
}


def limit(actor, machine, *, seen=None, **wanted):  # noqa: F811
    return bandwidth.limit_card(actor=actor, machine=machine, mac=MAC, limits=wanted, seen=seen or NONE)


def card(**values):
    return {"devices": {"interfaces": [values]}}


def limited(told):
    return card(limits=told)


def test_limits_are_those_of_the_definition_and_go_back(cast, machine):  # noqa: F811
    """Red when what was seen is not asked for, or what is left empty stays as it was."""
    begun = limit(cast.requester, machine, **WANTED)
    names = begun.identifiers
    assert (names["limits"], names["back"], names["ran"]) == (WANTED, NONE, NONE)
    assert told(begun)["Inbound average, MiB/s"] == "none → 2.5"
    finish(begun)
    see(machine, limited(SOME), before=limited(SOME))
    assert bandwidth.limits_of(noted.of(machine), MAC) == WANTED
    with pytest.raises(Changed):
        limit(cast.requester, machine, outbound_average=5)
    assert limit(cast.requester, machine, **WANTED) is None
    free = limit(cast.requester, machine, seen=WANTED, outbound_average=256)
    assert free.identifiers["limits"] == {**NONE, "outbound_average": 256}
    assert free.identifiers["back"] == free.identifiers["ran"] == WANTED


def test_each_side_goes_back_as_it_was(cast, machine):  # noqa: F811
    """Red when what ran is put back as it was defined, or setting what only is defined begins nothing."""
    see(machine, limited(SOME), before=limited({"inbound": {"average": 7}}))
    begun = limit(cast.requester, machine, seen=WANTED, **WANTED)
    assert (begun.identifiers["back"], begun.identifiers["ran"]) == (WANTED, {**NONE, "inbound_average": 7})
    finish(begun)
    see(machine, limited(SOME), running=False)
    off = limit(cast.requester, machine, seen=WANTED)
    assert (off.identifiers["back"], off.identifiers["ran"]) == (WANTED, None)


def test_what_is_so_already_begins_nothing(cast, machine):  # noqa: F811
    assert limit(cast.requester, machine) is None


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ({"inbound_average": -1}, "inbound_average"),
        ({"outbound_average": MOST_BANDWIDTH + 1}, "outbound_average"),
        ({"inbound_average": 1, "inbound_burst": bandwidth.MOST_BURST + 1}, "inbound_burst"),
        ({"inbound_peak": 5}, "inbound_average"),
        ({"outbound_burst": 5, "inbound_average": 1}, "outbound_average"),
        ({"outbound_average": 6, "outbound_peak": 5}, "outbound_peak"),
    ],
)
def test_a_limit_that_cannot_be_is_refused_at_its_field(cast, machine, wanted, field):  # noqa: F811
    with pytest.raises(Denied) as denied:
        limit(cast.requester, machine, **wanted)
    assert denied.value.field == field
    assert not Operation.objects.filter(kind=bandwidth.LIMIT).exists()


@pytest.mark.parametrize("who", ["approver", "auditor"])
def test_who_may_not_use_a_machine_limits_nothing(cast, machine, who):  # noqa: F811
    with pytest.raises(Denied, match="Only the owner, an operator or an admin"):
        limit(getattr(cast, who), machine, inbound_average=9)


@pytest.mark.parametrize(
    ("change", "before", "words"),
    [
        (card(type="user", source=None), {}, "kind user"),
        # A function of a device, which its network gave it: no traffic passes the host's kernel.
        ({}, card(type="hostdev", source=None), "kind hostdev"),
        ({}, limited(SOME), "port group"),
        (card(source={"portgroup": "guests"}), {}, "port group"),
        (limited({"inbound": {"average": MOST_BANDWIDTH + 1}}), {}, "enormous"),
        ({}, limited({"outbound": {"average": -1}}), "enormous"),
    ],
)
def test_a_card_that_cannot_be_limited_says_why(cast, machine, change, before, words):  # noqa: F811
    """Red when either side is left out: libvirt would take the limits, and nobody would heed them."""
    see(machine, change, before=before)
    seen = bandwidth.limits_of(noted.of(machine), MAC)
    with pytest.raises(Denied, match=words):
        limit(cast.requester, machine, seen=seen, inbound_average=9)
    assert words in bandwidth.why_not(Port.objects.get(mac=MAC), noted.of(machine))


def test_a_card_of_a_guests_own_network_stays(cast, machine):  # noqa: F811
    Port.objects.filter(mac=MAC).update(network=make_network(79, kind=Network.Kind.USER))
    with pytest.raises(Denied, match="part of the machine's emulator"):
        limit(cast.requester, machine, inbound_average=9)


def test_a_card_that_is_gone_or_not_known_yet_is_not_limited(client, cast, machine):  # noqa: F811
    """Red when what is not known yet is taken for none."""
    see(machine, {"devices": {"interfaces": [None]}}, running=False)
    with pytest.raises(Denied, match="has this card no more"):
        limit(cast.requester, machine, inbound_average=9)
    noted.forget_all_but(machine.host_id, (), timezone.now())
    with pytest.raises(Denied, match="has not told"):
        limit(cast.requester, machine, inbound_average=9)
    client.force_login(cast.requester)
    assert client.get(url("vms:card", args=[machine.pk, MAC])).context["limits"] is None
    there = url("vms:card_limits", args=[machine.pk, MAC])
    answer = client.post(there, {"inbound_average": "5"})
    assert answer.status_code == 422 and "has not told" in answer.content.decode()
    Port.objects.all().delete()
    answer = client.post(there, {"inbound_average": "5"}, follow=True)
    assert "has this card no more" in answer.content.decode()


# What is done


@pytest.fixture
def calls(monkeypatch):
    """What the steps ask of a driver, which raises what `calls.raises` is."""

    class Calls(list):
        raises = None

    made = Calls()

    def call(_host, verb, *args, timeout):
        if verb == "definition":
            raise DomainNotFound("nobody asked")
        made.append((verb, args[1:]))
        if made.raises is not None:
            raise made.raises

    monkeypatch.setattr(steps, "call", call)
    return made


def context(begun):
    return StepContext(begun.frozen, begun.identifiers, check=lambda: None)


def test_the_undo_sets_each_side_back(cast, machine, calls):  # noqa: F811
    see(machine, limited(SOME), before=limited({"inbound": {"average": 7}}))
    begun = limit(cast.requester, machine, seen=WANTED, outbound_average=5)
    bandwidth.LimitCard().do(context(begun))
    bandwidth.LimitCard().undo(context(begun))
    assert calls == [
        ("limit_nic", (MAC, {**NONE, "outbound_average": 5})),
        ("limit_nic", (MAC, WANTED, {**NONE, "inbound_average": 7})),
    ]


@pytest.mark.parametrize("error", [NotSupported("of the kind user"), DeviceNotFound(), DomainNotFound()])
def test_what_others_made_of_the_card_meanwhile_is_not_taken_back(cast, machine, calls, error):  # noqa: F811
    """Red when an undo goes on for ever since there is nothing to take back."""
    begun = limit(cast.requester, machine, outbound_average=5)
    calls.raises = error
    bandwidth.LimitCard().undo(context(begun))


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (NoShaping("no sfq"), "no_shaping", "lacks the program tc"),
        (NotSupported("of the kind user"), "card_unlimited", "of the kind user"),
    ],
)
def test_a_host_that_cannot_is_told_of_in_a_sentence(cast, machine, calls, error, code, words):  # noqa: F811
    begun = limit(cast.requester, machine, outbound_average=5)
    calls.raises = error
    with pytest.raises(StepFailed) as failed:
        bandwidth.LimitCard().do(context(begun))
    assert failed.value.code == code
    assert words in messages.sentence(code, failed.value.raw)


# The page


def test_the_cards_page_limits_it_and_shows_what_another_changed(client, cast, machine):  # noqa: F811
    client.force_login(cast.requester)
    page, there = (url(f"vms:{name}", args=[machine.pk, MAC]) for name in ("card", "card_limits"))
    seen = {"seen": client.get(page).context["limits"].initial["seen"]}
    wrong = client.post(there, {**seen, "inbound_peak": "5"})
    assert wrong.status_code == 422 and "goes with an average" in wrong.content.decode()
    assert client.post(there, {**seen, "inbound_average": "much"}).status_code == 422
    answer = client.post(there, {**seen, "inbound_average": "2.5", "outbound_average": "0.0001"})
    begun = Operation.objects.get(kind=bandwidth.LIMIT)
    assert answer.url == url("operations:detail", args=[begun.pk])
    # What is no whole KiB is rounded up: a limit that was typed is never none.
    assert begun.identifiers["limits"] == {**NONE, "inbound_average": 2560, "outbound_average": 1}
    finish(begun)
    see(machine, limited(SOME), before=limited(SOME))
    text = client.get(page).content.decode()
    assert 'value="2.5"' in text and "needs nobody's consent" in text and "8.4 Mbit/s" in text
    late = client.post(there, {**seen, "outbound_average": "9"})
    text = late.content.decode()
    assert late.status_code == 422 and "Somebody changed this while you looked" in text
    assert "Inbound average, MiB/s" in text and "2.5" in text
    # Looked at again, it is the person's own decision.
    client.post(there, {"seen": late.context["limits"]["seen"].value(), "outbound_average": "9"})
    asked = Operation.objects.filter(kind=bandwidth.LIMIT).latest("pk").identifiers["limits"]
    assert asked == {**NONE, "outbound_average": 9 * 1024}


def test_the_page_says_why_a_card_is_not_limited(client, cast, machine):  # noqa: F811
    client.force_login(cast.requester)
    see(machine, {}, before=limited(SOME))
    text = client.get(url("vms:card", args=[machine.pk, MAC])).content.decode()
    assert "come from its network&#x27;s port group" in text


def test_strangers_see_nothing_of_it(client, machine, django_user_model):  # noqa: F811
    client.force_login(django_user_model.objects.create(username="stranger"))
    assert client.post(url("vms:card_limits", args=[machine.pk, MAC])).status_code == 404
