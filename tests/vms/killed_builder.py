"""A worker that builds a real machine and dies by SIGKILL at a chosen point. Run by test_building.py.

Arguments: OPERATION-ID (claim it) or `reap`; then POINT, like `before:volume` or `undo-after:domain`, or
`never`; then the step that fails after it acted, or `none`.
"""

import os
import signal
import sys
from dataclasses import replace

import django

POINT, FAILING = sys.argv[2], sys.argv[3]


def die_at(point):
    if point == POINT:
        os.kill(os.getpid(), signal.SIGKILL)


def main():
    django.setup()
    import portal.celery  # noqa: F401 (dispatch needs the current app)
    from portal.operations import registry, runner, services

    class Mortal(registry.Step):
        """A real step with places to die before and after it acts."""

        def __init__(self, step):
            self.step = step
            self.name, self.title = step.name, step.title

        def do(self, context):
            die_at(f"before:{self.name}")
            if self.name == FAILING == "address":
                raise registry.StepFailed("no_address", "told to fail")
            self.step.do(context)
            die_at(f"after:{self.name}")
            if self.name == FAILING:
                raise registry.StepFailed("pool_full", "told to fail")

        def undo(self, context):
            die_at(f"undo-before:{self.name}")
            self.step.undo(context)
            die_at(f"undo-after:{self.name}")

    kind = registry.kind_of("vm.create")
    registry._kinds["vm.create"] = replace(kind, steps=[Mortal(step) for step in kind.steps])
    if sys.argv[1] == "reap":
        for operation in services.take_over_lapsed(worker="reaper"):
            runner.carry_on(operation, worker="reaper")
    else:
        operation = services.claim(int(sys.argv[1]), worker="worker")
        if operation is not None:
            runner.carry_on(operation, worker="worker")


if __name__ == "__main__":
    main()
