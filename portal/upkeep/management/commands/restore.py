"""`manage.py restore`: make the portal what a backup holds."""

import getpass
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from portal.upkeep import environment, services
from portal.upkeep.errors import UpkeepError


class Command(BaseCommand):
    help = "Restore the portal from a backup. Stop the portal first."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path)
        parser.add_argument("--replace", action="store_true", help="set the portal that is here aside")

    def handle(self, *args: Any, **options: Any) -> None:
        """Restore it and say what is there now. A refusal is a CommandError."""
        actor = f"{getpass.getuser()} (manage.py restore)"
        try:
            done = services.restore(actor=actor, source=options["file"], replace=options["replace"])
        except UpkeepError as refused:
            raise CommandError(str(refused)) from refused
        self.stdout.write(f"Restored the backup of {done.manifest.made_at}.")
        if done.replaced:
            self.stdout.write(f"What was here is in {done.replaced}")
        self.stdout.write(
            f"The settings of that time are in {settings.STATE_DIR}/{environment.FILE}: a portal that should "
            "answer as before needs them in its environment."
        )
        for fault in done.faults[:10]:
            self.stderr.write(fault)
        if done.faults:
            raise CommandError(f"The portal is restored, but its audit chain has {len(done.faults)} faults.")
        self.stdout.write("The audit chain holds. Start the portal with scripts/run.")
