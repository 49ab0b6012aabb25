"""Add, change, order, switch and delete policies. Not for: what they say about a request, see `judging`."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from django.db import transaction
from django.utils.translation import gettext as _

from portal.accounts.backends import may
from portal.accounts.models import Project, User
from portal.audit import services as audit
from portal.core.errors import Denied
from portal.operations.policies import store
from portal.operations.policies.models import Policy, PolicyChoice
from portal.operations.policies.rules import Level, Rule, Who
from portal.operations.registry import asked_kinds


def _check(actor: Any) -> None:
    if not may(actor, "administer", None):
        raise Denied(_("Only an admin of every project may change policies."))


def problems(rule: Rule, *, policy: Policy | None = None) -> Iterator[tuple[str, str]]:
    """Yield (field, sentence) for what cannot be meant by `rule`, or stored as `policy` (None: a new one)."""
    yield from rule.problems()
    others = Policy.objects.exclude(pk=policy.pk) if policy else Policy.objects.all()
    if others.filter(name=rule.name).exists():
        yield "name", _("Another policy has this name.")
    known = {kind.name for kind in asked_kinds()}
    for kind in sorted(set(rule.kinds) - known):
        yield "kinds", _("Nobody can ask for %(kind)s.") % {"kind": kind}
    if any(not 1 <= len(item) <= 80 for item in rule.items):
        yield "items", _("A catalogue item has a name of 1 to 80 characters.")
    if len(set(rule.projects)) != Project.objects.filter(pk__in=rule.projects).count():
        yield "projects", _("A project of this policy is gone.")
    named = {person for level in rule.levels for person in level.people}
    for field, people in (("people", set(rule.people)), ("levels", named)):
        if len(people) != User.objects.filter(pk__in=people).count():
            yield field, _("A person of this policy is gone.")


def _checked(rule: Rule, policy: Policy | None = None) -> Rule:
    for field, sentence in problems(rule, policy=policy):
        raise Denied(sentence, field=field)
    # People stay with a level only while it asks for named people.
    levels = tuple(
        level if level.who == Who.PEOPLE else Level(level.who, level.needed) for level in rule.levels
    )
    return replace(rule, levels=levels)


@transaction.atomic
def add_policy(*, actor: Any, rule: Rule) -> Policy:
    """Add a policy that is asked last. Raises Denied, with the field that cannot be meant."""
    _check(actor)
    rule = _checked(rule)
    last = Policy.objects.order_by("-position").values_list("position", flat=True).first()
    policy = store.write(Policy(position=(last or 0) + 1), rule)
    audit.record(actor=actor, verb="policy.added", target=policy, after=store.snapshot(policy))
    return policy


@transaction.atomic
def change_policy(*, actor: Any, policy: Policy, rule: Rule) -> Policy:
    """Make `policy` say `rule`; requests that were asked before keep what was demanded. Raises Denied."""
    _check(actor)
    current = _locked(policy)
    rule = _checked(rule, current)
    before = store.snapshot(current)
    changed = store.write(current, rule)
    after = store.snapshot(changed)
    if after != before:
        audit.record(actor=actor, verb="policy.changed", target=changed, before=before, after=after)
    return changed


@transaction.atomic
def switch_policy(*, actor: Any, policy: Policy, enabled: bool) -> None:
    """Switch `policy` on or off. Idempotent. Raises Denied."""
    _check(actor)
    current = _locked(policy)
    if current.enabled == enabled:
        return
    current.enabled = enabled
    current.save(update_fields=["enabled", "changed_at"])
    audit.record(
        actor=actor,
        verb="policy.switched_on" if enabled else "policy.switched_off",
        target=current,
        before={"enabled": not enabled},
        after={"enabled": enabled},
    )


@transaction.atomic
def move_policy(*, actor: Any, policy: Policy, up: bool) -> None:
    """Let `policy` be asked one place earlier or later; the first and the last stay. Raises Denied."""
    _check(actor)
    order = list(Policy.objects.select_for_update().order_by("position", "pk"))
    keys = [item.pk for item in order]
    if policy.pk not in keys:
        raise Denied(_("This policy is gone."))
    before = keys.index(policy.pk)
    after = max(0, before - 1) if up else min(len(order) - 1, before + 1)
    if before == after:
        return
    order.insert(after, order.pop(before))
    for position, item in enumerate(order, 1):
        item.position = position
    Policy.objects.bulk_update(order, ["position"])
    audit.record(
        actor=actor,
        verb="policy.moved",
        target=policy,
        before={"position": before + 1},
        after={"position": after + 1, "order": [item.name for item in order]},
    )


@transaction.atomic
def delete_policy(*, actor: Any, policy: Policy, confirm_name: str) -> None:
    """Delete `policy`, whose name was typed; requests keep what it demanded of them. Raises Denied."""
    _check(actor)
    current = _locked(policy)
    if confirm_name != current.name:
        raise Denied(_("Type the policy's name exactly to delete it."))
    audit.record(actor=actor, verb="policy.deleted", target=current, before=store.snapshot(current))
    current.delete()


def follow_item(*, actor: Any, before: str, after: str) -> int:
    """Let policies that name a catalogue item follow its new name; return how many. Joins the transaction.

    Called by whoever renames the item, who has checked the right to do so.
    """
    renamed = 0
    chosen = PolicyChoice.objects.filter(of=PolicyChoice.Of.ITEM, value=before).select_related("policy")
    for choice in chosen:
        was = store.snapshot(choice.policy)
        if PolicyChoice.objects.filter(policy=choice.policy, of=choice.of, value=after).exists():
            choice.delete()
        else:
            choice.value = after
            choice.save(update_fields=["value"])
        now = store.snapshot(choice.policy)
        audit.record(actor=actor, verb="policy.changed", target=choice.policy, before=was, after=now)
        renamed += 1
    return renamed


def _locked(policy: Policy) -> Policy:
    """Return `policy` as it is now, locked. Raises Denied when it is gone."""
    current = Policy.objects.select_for_update().filter(pk=policy.pk).first()
    if current is None:
        raise Denied(_("This policy is gone."))
    return current
