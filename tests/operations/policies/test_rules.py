"""Which requests a policy speaks about, and which policies cannot be meant. No database."""

import pytest

from portal.operations.policies.rules import Case, Effect, Level, Rule, Who, case_of, cost_of
from portal.operations.spec import RequestSpec

GIB = 1 << 30
CASE = Case(
    kind="vm.create",
    project=1,
    person=7,
    item="Debian 12",
    measures={
        "vcpu": 4,
        "memory": 8 * GIB,
        "disk": 40 * GIB,
        "machines": 2,
        "cost": 2050,
        "lease": 30 * 86400,
    },
)


def rule(**conditions):
    return Rule(name="rule", **conditions)


@pytest.mark.parametrize(
    "conditions, matches",
    [
        ({}, True),
        ({"kinds": ("vm.create",)}, True),
        ({"kinds": ("vm.resize",)}, False),
        ({"kinds": ("vm.resize", "vm.create")}, True),
        ({"items": ("Debian 12",)}, True),
        ({"items": ("debian 12",)}, False),
        ({"projects": (1, 2)}, True),
        ({"projects": (2,)}, False),
        ({"people": (7,)}, True),
        ({"people": (8,)}, False),
        ({"projects": (1,), "people": (8,)}, False),
        ({"ranges": {"vcpu": (4, None)}}, True),
        ({"ranges": {"vcpu": (5, None)}}, False),
        ({"ranges": {"vcpu": (None, 4)}}, True),
        ({"ranges": {"vcpu": (None, 3)}}, False),
        ({"ranges": {"vcpu": (4, 4)}}, True),
        ({"ranges": {"memory": (8 * GIB, None)}}, True),
        ({"ranges": {"memory": (8 * GIB + 1, None)}}, False),
        ({"ranges": {"disk": (None, 40 * GIB - 1)}}, False),
        ({"ranges": {"machines": (None, 2)}}, True),
        ({"ranges": {"machines": (3, None)}}, False),
        ({"ranges": {"machines": (0, 0)}}, False),
        ({"ranges": {"cost": (None, 2050)}}, True),
        ({"ranges": {"cost": (None, 2049)}}, False),
        ({"ranges": {"lease": (31 * 86400, None)}}, False),
        ({"ranges": {"vcpu": (None, 4), "memory": (None, 4 * GIB)}}, False),
        ({"ranges": {"vcpu": (None, 4), "memory": (None, 8 * GIB)}, "items": ("Debian 12",)}, True),
    ],
)
def test_all_conditions_must_match(conditions, matches):
    """Red when `matches` says any() instead of all(), or a bound leaves itself out."""
    assert rule(**conditions).matches(CASE) is matches


def test_a_measure_that_the_request_lacks_matches_no_bound():
    bare = Case("host.enrol", 1, 7, "", {})
    assert not rule(ranges={"cost": (None, 100)}).matches(bare)
    assert not rule(ranges={"cost": (0, None)}).matches(bare)
    assert rule().matches(bare)


def test_a_case_is_read_from_the_frozen_request():
    spec = RequestSpec("vm.create", {"vcpu": 2, "lease": 86400}, {"item": "Tiny", "cost_month": "2.505"})
    case = case_of(spec, project=1, person=7, machines=3)
    assert case.measures == {"vcpu": 2, "lease": 86400, "machines": 3, "cost": 251}
    assert (case.kind, case.item) == ("vm.create", "Tiny")


@pytest.mark.parametrize("text", [None, "", "free", "NaN", "Infinity"])
def test_a_cost_that_is_no_number_is_not_there(text):
    assert cost_of(text) is None


@pytest.mark.parametrize(
    "values, field, sentence",
    [
        ({"name": " "}, "name", "1 to 80"),
        ({"name": "x" * 81}, "name", "1 to 80"),
        ({"ranges": {"vcpu": (5, 4)}}, "vcpu", "least is more than the most"),
        ({"ranges": {"vcpu": (-1, None)}}, "vcpu", "below zero"),
        ({"ranges": {"disk": (None, 1 << 63)}}, "disk", "larger than anything"),
        ({"ranges": {"disk": (None, None)}}, "disk", "give a least or a most"),
        ({"ranges": {"colour": (1, 2)}}, "ranges", "nothing that a request is measured by"),
        ({"expires_days": 0}, "expires_days", "1 to 3650 days"),
        ({"expires_days": 99999}, "expires_days", "1 to 3650 days"),
        ({"effect": "maybe"}, "effect", "what becomes of the request"),
        ({"effect": Effect.REFUSE}, "refusal", "why it is refused"),
        ({"effect": Effect.REFUSE, "refusal": "x" * 301}, "refusal", "at most 300"),
        ({"levels": ()}, "levels", "1 to 3 levels"),
        ({"levels": (Level(),) * 4}, "levels", "1 to 3 levels"),
        ({"levels": (Level("everybody"),)}, "levels", "Level 1: say who"),
        ({"levels": (Level(), Level(needed=0))}, "levels", "Level 2: 1 to 20"),
        ({"levels": (Level(needed=21),)}, "levels", "Level 1: 1 to 20"),
        ({"levels": (Level(Who.PEOPLE),)}, "levels", "name the people"),
        ({"levels": (Level(Who.PEOPLE, 2, (7,)),)}, "levels", "more must agree than"),
    ],
)
def test_what_cannot_be_meant_is_said_at_its_field(values, field, sentence):
    found = list(Rule(**{"name": "rule", **values}).problems())
    assert [name for name, _text in found] == [field]
    assert sentence in found[0][1]


def test_a_rule_without_faults_has_no_problems():
    full = rule(
        ranges={"vcpu": (0, 4)},
        levels=(Level(), Level(Who.ADMINS, 2), Level(Who.PEOPLE, 1, (7,))),
        expires_days=30,
    )
    assert list(full.problems()) == []


def test_the_digest_knows_what_decides_and_nothing_else():
    """Red when `demand` leaves out a condition: a request would not know that its policy changed."""
    plain = rule().digest()
    assert Rule(name="other", description="words", enabled=False).digest() == plain
    for change in (
        {"kinds": ("a",)},
        {"items": ("a",)},
        {"projects": (1,)},
        {"people": (1,)},
        {"ranges": {"vcpu": (1, None)}},
        {"effect": Effect.AUTO},
        {"levels": (Level(needed=2),)},
        {"levels": (Level(Who.PEOPLE, 1, (7,)),)},
        {"refusal": "no"},
        {"expires_days": 3},
    ):
        assert rule(**change).digest() != plain, change
    assert rule(ranges={"vcpu": (1, None)}).digest() != rule(ranges={"vcpu": (None, 1)}).digest()
