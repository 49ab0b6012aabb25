"""The last thing that consent does: a place is chosen and held, and the operation goes to the workers."""

from portal.operations.dispatch import dispatch
from portal.operations.models import Operation
from portal.operations.registry import kind_of


def place(operation: Operation) -> None:
    """Let the operation's kind choose where it is carried out, and queue it. Joins the transaction.

    Raises Denied when there is no room.
    """
    kind_of(operation.kind).place(operation)
    operation.save(update_fields=["identifiers", "lane", "subject"])
    dispatch(operation.pk)
