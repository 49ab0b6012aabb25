"""Workers in processes of their own, that die by SIGKILL at a chosen point. Run by test_runner.py."""

from pathlib import Path

import django

from tests import dying
from tests.dying import die_at

STEPS = ("disk", "seed", "domain")


def main():
    django.setup()
    from portal.operations import registry

    class FileStep(registry.Step):
        """Makes one real file under the name that the database fixed."""

        def __init__(self, name):
            self.name = self.title = name

        def path(self, context):
            return Path(context.identifiers["folder"]) / self.name

        def do(self, context):
            die_at(f"before:{self.name}")
            if self.name == dying.told.failing:
                raise registry.StepFailed("pool_full", "no space left")
            self.path(context).touch()
            die_at(f"after:{self.name}")

        def undo(self, context):
            die_at(f"undo-before:{self.name}")
            self.path(context).unlink(missing_ok=True)
            die_at(f"undo-after:{self.name}")

    registry.register(registry.Kind("test.files", "Make files", [FileStep(name) for name in STEPS]))
    dying.serve()


if __name__ == "__main__":
    main()
