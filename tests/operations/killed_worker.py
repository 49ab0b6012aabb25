"""A worker in a process of its own, that dies by SIGKILL at a chosen point. Run by test_runner.py.

Arguments: OPERATION-ID (claim it) or `reap` (take over what lapsed); then POINT, like `before:disk`,
`after:seed`, `undo-before:disk`, `undo-after:disk`, or `never`; then the step that fails, or `none`.
"""

import os
import signal
import sys
from pathlib import Path

import django

POINT, FAILING = sys.argv[2], sys.argv[3]
STEPS = ("disk", "seed", "domain")


def die_at(point):
    if point == POINT:
        os.kill(os.getpid(), signal.SIGKILL)


def main():
    django.setup()
    import portal.celery  # noqa: F401 (dispatch needs the current app)
    from portal.operations import registry, runner, services

    class FileStep(registry.Step):
        """Makes one real file under the name that the database fixed."""

        def __init__(self, name):
            self.name = self.title = name

        def path(self, context):
            return Path(context.identifiers["folder"]) / self.name

        def do(self, context):
            die_at(f"before:{self.name}")
            if self.name == FAILING:
                raise registry.StepFailed("pool_full", "no space left")
            self.path(context).touch()
            die_at(f"after:{self.name}")

        def undo(self, context):
            die_at(f"undo-before:{self.name}")
            self.path(context).unlink(missing_ok=True)
            die_at(f"undo-after:{self.name}")

    registry.register(registry.Kind("test.files", "Make files", [FileStep(name) for name in STEPS]))
    if sys.argv[1] == "reap":
        for operation in services.take_over_lapsed(worker="reaper"):
            runner.carry_on(operation, worker="reaper")
    else:
        operation = services.claim(int(sys.argv[1]), worker="worker")
        if operation is not None:
            runner.carry_on(operation, worker="worker")


if __name__ == "__main__":
    main()
