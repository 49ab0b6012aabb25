"""Take from counters, give back, turn promised into used. Every call joins the caller's transaction.

Taking is one conditional UPDATE, never SUM-then-insert: the database serialises it on SQLite and
PostgreSQL alike. Counters are always touched in order of their key, so that two takers cannot deadlock.
"""

from collections.abc import Collection, Mapping

from django.db import transaction
from django.db.models import F, Q, QuerySet

from portal.core.errors import Denied
from portal.operations.models import Counter, Operation, Reservation

Amounts = Mapping[tuple[str, str], int]


def hold(operation: Operation, amounts: Amounts) -> None:
    """Hold `amounts` ({(scope, resource): amount}) for `operation`, all or nothing.

    A scope and resource without a counter are unlimited. Raises Denied naming the first counter that is
    too small, and ValueError for an amount under one. Not idempotent: a second hold violates a constraint.
    """
    with transaction.atomic():
        counters = {(counter.scope, counter.resource): counter for counter in _counters(amounts)}
        for key, counter in counters.items():
            amount = amounts[key]
            if amount < 1:
                raise ValueError(f"cannot hold {amount} of {key}")
            taken = Counter.objects.filter(
                pk=counter.pk, limit__gte=F("held") + F("used") + amount
            ).update(held=F("held") + amount)
            if not taken:
                counter.refresh_from_db()
                raise Denied(shortage(counter, amount), field=counter.resource)
            Reservation.objects.create(operation=operation, counter=counter, amount=amount)


def rehold(operation: Operation, amounts: Amounts) -> None:
    """Make what `operation` holds exactly `amounts`, all or nothing; what is not named goes back.

    Only for an operation whose row the caller's transaction has changed already, so that nobody else moves
    its reservations. Raises Denied naming the first counter that is too small; nothing is changed then.
    Idempotent.
    """
    with transaction.atomic():
        held = {reservation.counter_id: reservation for reservation in _held(operation)}
        counters = {counter.pk: counter for counter in _counters(amounts)}
        counters |= {key: reservation.counter for key, reservation in held.items()}
        for key in sorted(counters):
            counter = counters[key]
            _rehold_one(operation, counter, held.get(key), amounts.get((counter.scope, counter.resource), 0))


def shrink(operation: Operation, amounts: Amounts) -> None:
    """Give back what `operation` holds beyond `amounts`; never takes more. Idempotent."""
    keys = {(item.counter.scope, item.counter.resource): item.amount for item in _held(operation)}
    rehold(operation, {key: min(amount, amounts.get(key, amount)) for key, amount in keys.items()})


def lock_ahead(operation: Operation) -> None:
    """Lock whatever a transaction may touch that first gives back quota and then takes capacity.

    Counters are locked in order of their key within one call, but not over two: two such transactions
    could each wait for the other. SQLite has one writer at a time and locks nothing here.
    """
    mine = Q(reservations__operation=operation) | Q(scope__startswith="host:") | Q(scope__startswith="pool:")
    wanted = Counter.objects.filter(mine).values("pk")
    list(Counter.objects.select_for_update().filter(pk__in=wanted).order_by("pk").values_list("pk"))


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
        for reservation in used.exclude(counter__resource__in=keep):
            if _step(reservation, Reservation.Stage.RELEASED):
                Counter.objects.filter(pk=reservation.counter_id).update(used=F("used") - reservation.amount)


def take_again(operation: Operation) -> None:
    """Take again what `give_back` freed, all or nothing. Idempotent. Raises Denied when there is no room."""
    with transaction.atomic():
        freed = operation.reservations.filter(stage=Reservation.Stage.RELEASED).order_by("counter_id")
        for reservation in freed.select_related("counter"):
            if not _step(reservation, Reservation.Stage.USED):
                continue
            amount = reservation.amount
            taken = Counter.objects.filter(
                pk=reservation.counter_id, limit__gte=F("held") + F("used") + amount
            ).update(used=F("used") + amount)
            if not taken:
                raise Denied(shortage(reservation.counter, amount), field=reservation.counter.resource)


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
    room = Q(limit__gte=F("held") + F("used") + amount - own) if amount > own else Q()
    if not Counter.objects.filter(room, pk=counter.pk).update(held=F("held") + amount - own):
        counter.refresh_from_db()
        raise Denied(shortage(counter, amount, own), field=counter.resource)
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
    resource, where = Counter.Resource(counter.resource), counter.title or counter.scope
    left = amount_text(resource, max(0, counter.limit - counter.held - counter.used + own))
    return (
        f"There is not enough {resource.label.lower()} left for {where}: {amount_text(resource, amount)} "
        f"asked, {left} of {amount_text(resource, counter.limit)} left."
    )


def amount_text(resource: str, amount: int) -> str:
    """Return an amount with its unit: GiB or MiB for memory and disk, a plain number otherwise."""
    if resource in {Counter.Resource.MEMORY, Counter.Resource.DISK}:
        if 0 < amount < 1 << 30:
            return f"{round(amount / (1 << 20)):,} MiB"
        return f"{amount / (1 << 30):,.1f}".removesuffix(".0") + " GiB"
    return str(amount)


def _counters(amounts: Amounts) -> list[Counter]:
    scopes = {scope for scope, _ in amounts}
    found = Counter.objects.filter(scope__in=scopes).order_by("pk")
    return [counter for counter in found if (counter.scope, counter.resource) in amounts]


def _settle(operation: Operation, stage: Reservation.Stage) -> None:
    with transaction.atomic():
        held = operation.reservations.filter(stage=Reservation.Stage.HELD).order_by("counter_id")
        for reservation in held:
            if not _step(reservation, stage):
                continue
            changes = {"held": F("held") - reservation.amount}
            if stage == Reservation.Stage.USED:
                changes["used"] = F("used") + reservation.amount
            Counter.objects.filter(pk=reservation.counter_id).update(**changes)
