"""Workers that build or end a real machine, or import an image, and die by SIGKILL at a chosen point.

Run by tests beside it.
"""

from dataclasses import replace

import django

from tests import dying
from tests.dying import die_at


def main():
    django.setup()
    from portal.operations import registry

    class Mortal(registry.Step):
        """A real step with places to die before and after it acts."""

        def __init__(self, step):
            self.step = step
            self.name, self.title = step.name, step.title

        def do(self, context):
            die_at(f"before:{self.name}")
            if self.name == dying.told.failing == "address":
                raise registry.StepFailed("no_address", "told to fail")
            remark = self.step.do(context)
            die_at(f"after:{self.name}")
            if self.name == dying.told.failing:
                raise registry.StepFailed("pool_full", "told to fail")
            return remark

        def undo(self, context):
            die_at(f"undo-before:{self.name}")
            self.step.undo(context)
            die_at(f"undo-after:{self.name}")

    for name, kind in list(registry._kinds.items()):
        if name.startswith("vm.") or name.endswith("_image"):
            registry._kinds[name] = replace(kind, steps=[Mortal(step) for step in kind.steps])
    dying.serve()


if __name__ == "__main__":
    main()
