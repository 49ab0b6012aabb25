"""Take from counters, give back, turn promised into used. Every call joins the caller's transaction.

Taking is one conditional UPDATE, never SUM-then-insert: the database serialises it on SQLite and
PostgreSQL alike. Counters are always touched in order of their key, so that two takers cannot deadlock.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import NoReturn

from django.db import transaction
from django.db.models import BigIntegerField, F, Q, QuerySet, Value
from django.db.models.functions import Coalesce
from django.utils.translation import gettext as _

from portal.core.errors import Denied
from portal.live.publish import publish
from portal.operations import scopes
from portal.operations.counters import Key, counters
from portal.operations.models import Counter, Operation, Reservation
from portal.operations.registry import lock_subject

Amounts = Mapping[Key, int]
#: Where a counter without a limit ends, so that the column cannot overflow.
ROOF = 1 << 60


def hold(operation: Operation, amounts: Amounts) -> None:
    """Hold `amounts` ({(scope, resource): amount}) for `operation`, all or nothing.

    A quota without a counter gets one, limited as the default above it says; a host or pool without one has
    no limit. Raises Denied naming the first counter that is too small, and ValueError for an amount under
    one. Not idempotent: a second hold violates a constraint.
    """
    with transaction.atomic():
        found = counters(amounts)
        for counter in found:
            amount = amounts[counter.scope, counter.resource]
            if amount < 1:
                raise ValueError(f"cannot hold {amount} of {counter.scope} {counter.resource}")
            if not _with_room(counter.pk, amount).update(held=F("held") + amount):
                _refuse(counter, amount)
        Reservation.objects.bulk_create(
            Reservation(
                operation=operation, counter=counter, amount=amounts[counter.scope, counter.resource]
            )
            for counter in found
        )
        _ring(found)


def _refuse(counter: Counter, amount: int, own: int = 0) -> NoReturn:
    """Raise Denied for `amount`, which the counter did not have left, or which no counter is there for.

    `own` of it is held already.
    """
    current = Counter.objects.filter(pk=counter.pk).first()
    if current is None:
        raise Denied(_("The %(what)s was removed meanwhile.") % {"what": counter.title or counter.scope})
    raise Denied(shortage(current, amount, own), field=current.resource)


def _with_room(pk: int, amount: int) -> QuerySet[Counter]:
    """Return the counter `pk` if `amount` more fits. Subtracts, because a sum might not fit the column."""
    limit = Coalesce("limit", Value(ROOF), output_field=BigIntegerField())
    return Counter.objects.filter(Q(held__lte=limit - F("used") - amount), pk=pk)


def rehold(operation: Operation, amounts: Amounts) -> None:
    """Make what `operation` holds exactly `amounts`, all or nothing; what is not named goes back.

    Only for an operation whose row the caller's transaction has changed already, so that nobody else moves
    its reservations. Raises Denied naming the first counter that is too small; nothing is changed then.
    Idempotent.
    """
    with transaction.atomic():
        held = {reservation.counter_id: reservation for reservation in _held(operation)}
        concerned = {counter.pk: counter for counter in counters(amounts)}
        concerned |= {key: reservation.counter for key, reservation in held.items()}
        for key in sorted(concerned):
            counter = concerned[key]
            _rehold_one(operation, counter, held.get(key), amounts.get((counter.scope, counter.resource), 0))


def shrink(operation: Operation, amounts: Amounts) -> None:
    """Give back what `operation` holds beyond `amounts`; never takes more. Idempotent."""
    keys = {(item.counter.scope, item.counter.resource): item.amount for item in _held(operation)}
    rehold(operation, {key: min(amount, amounts.get(key, amount)) for key, amount in keys.items()})


def lock_ahead(operation: Operation, amounts: Amounts | None = None) -> None:
    """Lock whatever a transaction may touch that first changes quota and then takes capacity.

    That is what `operation` is about, and then counters. `amounts` are those of quotas that it will take
    from beside what `operation` holds already.

    Counters are locked in order of their key within one call, but not over two: two such transactions
    could each wait for the other. SQLite has one writer at a time and locks nothing here.
    """
    lock_subject(operation)
    mine = Q(reservations__operation=operation) | Q(scope__startswith="host:") | Q(scope__startswith="pool:")
    # Made before anything is locked: whoever makes the same at the same moment may wait for what is locked.
    named = [counter.pk for counter in counters(amounts or {})]
    _lock(Q(pk__in=Counter.objects.filter(mine | Q(pk__in=named)).values("pk")))


def lock_to_end(operation: Operation) -> None:
    """Lock whatever the end of `operation` may touch: what it is about, then the counters of both."""
    lock([], taken_by=[operation.pk, *lock_subject(operation)])


def lock(scopes: Collection[str], *, taken_by: Collection[int] = ()) -> None:
    """Let nobody take from the counters of `scopes` until the caller's transaction ends.

    Nor from those of which the operations `taken_by`, by their keys, have something.
    """
    taken = Reservation.objects.filter(operation__in=taken_by).values("counter")
    _lock(Q(scope__in=scopes) | Q(pk__in=taken))


def _lock(which: Q) -> None:
    """Lock counters until the transaction ends, in order of their key as everywhere."""
    list(Counter.objects.select_for_update().filter(which).order_by("pk").values_list("pk"))


def forget(scopes: Collection[str]) -> None:
    """Remove the counters of `scopes` with what was given back to them: the host or pool is gone.

    The caller holds their `lock`. Raises ProtectedError while anything is taken of them. Idempotent.
    """
    with transaction.atomic():
        gone = Counter.objects.filter(scope__in=scopes)
        Reservation.objects.filter(counter__in=gone, stage=Reservation.Stage.RELEASED).delete()
        gone.delete()


def release(operation: Operation) -> None:
    """Give back what `operation` still holds. Idempotent; what is in use stays in use."""
    _settle(operation, Reservation.Stage.RELEASED)


def use(operation: Operation) -> None:
    """Turn what `operation` holds into used. Idempotent."""
    _settle(operation, Reservation.Stage.USED)


def give_back(operation: Operation, *, keep: Collection[str] = ()) -> None:
    """Free what `operation` has in use, but for the resources in `keep`. Idempotent."""
    with transaction.atomic():
        used = operation.reservations.filter(stage=Reservation.Stage.USED).order_by("counter_id")
        for reservation in used.exclude(counter__resource__in=keep).select_related("counter"):
            if _step(reservation, Reservation.Stage.RELEASED):
                Counter.objects.filter(pk=reservation.counter_id).update(used=F("used") - reservation.amount)
                _ring([reservation.counter])


def take_again(operation: Operation, *, beyond: bool = False) -> None:
    """Take again what was given back, all or nothing. Idempotent. Raises Denied when there is no room.

    `beyond` says that it is in use whatever there is room for, so that it only counts: nothing is refused.
    """
    with transaction.atomic():
        freed = operation.reservations.filter(stage=Reservation.Stage.RELEASED).order_by("counter_id")
        for reservation in freed.select_related("counter"):
            if not _step(reservation, Reservation.Stage.USED):
                continue
            amount = reservation.amount
            counter = Counter.objects.filter(pk=reservation.counter_id)
            row = counter if beyond else _with_room(reservation.counter_id, amount)
            if not row.update(used=F("used") + amount) and not beyond:
                _refuse(reservation.counter, amount)
            _ring([reservation.counter])


def hand_over(operation: Operation, to: Operation) -> None:
    """Let what `operation` has in use count as taken by `to`, whose machine it made larger.

    Called in the transaction that ends `operation`. Idempotent: nothing is left to hand over then.
    """
    with transaction.atomic():
        there = {row.counter_id: row for row in to.reservations.filter(stage=Reservation.Stage.USED)}
        for row in operation.reservations.filter(stage=Reservation.Stage.USED).order_by("counter_id"):
            if row.counter_id in there:
                mine = Reservation.objects.filter(pk=there[row.counter_id].pk)
                mine.update(amount=F("amount") + row.amount)
                row.delete()
            else:
                Reservation.objects.filter(pk=row.pk).update(operation=to)


def reduce(operation: Operation, amounts: Amounts) -> None:
    """Give `amounts` back of what `operation` has in use, at most all of it.

    Called in the transaction that makes what it built smaller. Not idempotent.
    """
    with transaction.atomic():
        used = operation.reservations.filter(stage=Reservation.Stage.USED).order_by("counter_id")
        for row in used.select_related("counter"):
            less = min(row.amount, amounts.get((row.counter.scope, row.counter.resource), 0))
            if not less:
                continue
            if less == row.amount:
                row.delete()
            else:
                Reservation.objects.filter(pk=row.pk).update(amount=F("amount") - less)
            Counter.objects.filter(pk=row.counter_id).update(used=F("used") - less)
            _ring([row.counter])


def _held(operation: Operation) -> QuerySet[Reservation]:
    return operation.reservations.filter(stage=Reservation.Stage.HELD).select_related("counter")


def _rehold_one(
    operation: Operation, counter: Counter, reservation: Reservation | None, amount: int
) -> None:
    if amount < 0:
        raise ValueError(f"cannot hold {amount} of {counter}")
    own = reservation.amount if reservation else 0
    if amount == own:
        return
    # What is smaller is always accepted, also when the limit was lowered below what is held.
    row = _with_room(counter.pk, amount - own) if amount > own else Counter.objects.filter(pk=counter.pk)
    if not row.update(held=F("held") + amount - own):
        _refuse(counter, amount, own)
    _ring([counter])
    if reservation is None:
        Reservation.objects.create(operation=operation, counter=counter, amount=amount)
    elif amount:
        Reservation.objects.filter(pk=reservation.pk).update(amount=amount)
    else:
        reservation.delete()


def _step(reservation: Reservation, stage: str) -> bool:
    """Move a reservation on, unless another did."""
    return bool(
        Reservation.objects.filter(pk=reservation.pk, stage=reservation.stage).update(stage=stage)
    )


def shortage(counter: Counter, amount: int, own: int = 0) -> str:
    """Return the sentence that says how far `amount` is beyond what `counter` has left.

    `own` is what the asking operation holds of it already.
    """
    resource = Counter.Resource(counter.resource)
    asked = amount_text(resource, amount)
    if counter.limit is None:
        return _("%(asked)s is more %(what)s than can be counted.") % {"asked": asked, "what": word(resource)}
    where = scopes.titles([counter.scope]).get(counter.scope) or counter.title or counter.scope
    left = amount_text(resource, max(0, counter.limit - counter.taken + own))
    if resource in {Counter.Resource.MEMORY, Counter.Resource.DISK}:
        sentence = _(
            "There is not enough %(what)s left for %(where)s: %(asked)s asked, %(left)s of %(limit)s left."
        )
    else:
        sentence = _(
            "There are not enough %(what)s left for %(where)s: %(asked)s asked, %(left)s of %(limit)s left."
        )
    limit = amount_text(resource, counter.limit)
    return sentence % {"what": word(resource), "where": where, "asked": asked, "left": left, "limit": limit}


def word(resource: str) -> str:
    """Return a resource as it stands inside a sentence: `vCPUs`, `memory`."""
    label = Counter.Resource(resource).label
    return label if resource == Counter.Resource.VCPU else label.lower()


def amount_text(resource: str, amount: int) -> str:
    """Return an amount with its unit: GiB or MiB for memory and disk, a plain number otherwise."""
    if resource in {Counter.Resource.MEMORY, Counter.Resource.DISK}:
        if 0 < amount < 1 << 30:
            return f"{round(amount / (1 << 20)):,} MiB"
        return f"{amount / (1 << 30):,.1f}".removesuffix(".0") + " GiB"
    return str(amount)


def _ring(touched: Iterable[Counter]) -> None:
    """Tell pages that show a quota that it changed."""
    publish(*(scopes.topic(counter.scope) for counter in touched))


def _settle(operation: Operation, stage: Reservation.Stage) -> None:
    with transaction.atomic():
        for reservation in _held(operation).order_by("counter_id"):
            if not _step(reservation, stage):
                continue
            changes = {"held": F("held") - reservation.amount}
            if stage == Reservation.Stage.USED:
                changes["used"] = F("used") + reservation.amount
            Counter.objects.filter(pk=reservation.counter_id).update(**changes)
            _ring([reservation.counter])
