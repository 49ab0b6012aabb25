"""Several machines by one request: what it is divided into once it is approved. Not for: building one."""

from collections.abc import Iterator, Mapping
from typing import Any

from django.utils.translation import gettext as _

from portal.core.errors import Denied
from portal.operations import batches
from portal.operations.models import Operation
from portal.operations.registry import Kind
from portal.operations.spec import RequestSpec
from portal.operations.states import State
from vms.asking import AskingForMachines
from vms.building import on_offer, owned_by
from vms.services import DEPLOY, KIND, quota_amounts, share_of, title_of

#: What is in the request for all of them alone.
_OF_ALL = frozenset({"names", "stem", "cost_each"})


class AskingForSeveral(AskingForMachines):
    """Requests for several machines of one make. What is lowered, is lowered for each of them alike."""

    def check_lowered(self, spec: Mapping[str, Any]) -> None:
        count = spec["sizes"]["machines"]
        for name in ("vcpu", "memory", "disk"):
            if spec["sizes"][name] % count:
                words = _("This is for %(count)d machines together; give what %(count)d can share evenly.")
                raise Denied(words % {"count": count}, field=name)
        super().check_lowered({**spec, "sizes": share_of(spec["sizes"])})


def parts_of(operation: Operation) -> Iterator[batches.Part]:
    """Yield the request for each machine, as if it had been asked for alone."""
    frozen, project = operation.frozen, operation.project
    if project is None:
        raise ValueError(f"{operation} builds machines for no project")
    sizes = share_of(frozen["sizes"])
    pinned = {name: value for name, value in frozen["pinned"].items() if name not in _OF_ALL}
    pinned["cost_month"] = frozen["pinned"]["cost_each"]
    for name in frozen["pinned"]["names"]:
        own = {**pinned, "name": name, "cloud": {**pinned["cloud"], "hostname": name}}
        spec = RequestSpec(kind=KIND, sizes=sizes, pinned=own)
        yield batches.Part(spec, title_of(name), quota_amounts(operation.requester, project, sizes))


def place(operation: Operation) -> None:
    """Begin to build every machine, each where there is room. Joins the transaction.

    Raises Denied, and then none is built, when one of them finds no room or its name is taken.
    """
    count = operation.frozen["sizes"]["machines"]
    try:
        batches.divide(operation, list(parts_of(operation)))
    except Denied as denied:
        words = _("Not all %(count)d machines can be built now, so none is begun. %(reason)s")
        raise Denied(words % {"count": count, "reason": denied.reason}, field=denied.field) from denied


def forget(operation: Operation, state: State) -> None:
    """Leave the machines to their own operations: nothing is this one's."""


DEPLOY_SEVERAL = Kind(
    name=DEPLOY,
    title="Create several machines",
    steps=(),
    place=place,
    settle=forget,
    asking=AskingForSeveral(),
    items=on_offer,
    owned=owned_by,
    judged_as=KIND,
    parts=True,
)
