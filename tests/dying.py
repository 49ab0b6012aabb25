"""What worker processes that die by SIGKILL at a chosen point share; Python runs them with `-m`.

Arguments: OPERATION-ID (claim it) or `reap` (take over what lapsed); then POINT, like `before:disk` or
`undo-after:disk`, or `never`; then the step that fails, or `none`.
"""

import os
import signal
import sys

TASK, POINT, FAILING = sys.argv[1:4]


def die_at(point):
    if point == POINT:
        os.kill(os.getpid(), signal.SIGKILL)


def work():
    """Carry out what TASK names, to its end or to POINT."""
    import portal.celery  # noqa: F401 (dispatch needs the current app)
    from portal.operations import runner, services

    if TASK == "reap":
        for operation in services.take_over_lapsed(worker="reaper"):
            runner.carry_on(operation, worker="reaper")
        return
    operation = services.claim(int(TASK), worker="worker")
    if operation is not None:
        runner.carry_on(operation, worker="worker")
