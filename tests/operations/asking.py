"""A request that was asked for and approved, for tests of what a worker does with it."""

import uuid

from portal.operations import services
from portal.operations.spec import RequestSpec


def approved(cast, quota, kind):
    """Return an operation of `kind` that the approver agreed to; it holds one GiB of memory of `quota`."""
    spec = RequestSpec(kind.name, {"memory": 1 << 30}, {})
    asked = services.request_operation(
        actor=cast.requester,
        project=cast.project,
        spec=spec,
        amounts={(quota.scope, "memory"): 1 << 30},
        token=uuid.uuid4(),
    )
    services.decide(actor=cast.approver, operation=asked, spec_hash=spec.hash(), approved=True)
    return asked
