"""`manage.py backup`: write the portal's database, keys and settings into one file."""

import getpass
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from portal.upkeep import services
from portal.upkeep.errors import UpkeepError


class Command(BaseCommand):
    help = "Back the portal up into one file, while it runs. Machines' disks are not in it."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", nargs="?", type=Path, help="where to write it")
        parser.add_argument("--no-images", action="store_true", help="leave out the guest images")
        parser.add_argument(
            "--before-upgrade", action="store_true", help="only when migrations are due, into the state"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Write it and say where. A refusal is a CommandError."""
        actor = f"{getpass.getuser()} (manage.py backup)"
        try:
            if options["before_upgrade"]:
                made = services.back_up_before_upgrade(actor=actor)
                if made:
                    self.stdout.write(f"Before migrating, the portal was backed up: {made}")
                return
            if options["file"] is None:
                raise UpkeepError("Say where to write the backup.")
            manifest = services.back_up(actor=actor, target=options["file"], images=not options["no_images"])
        except UpkeepError as refused:
            raise CommandError(str(refused)) from refused
        self.stdout.write(f"Backed up: {options['file']} ({len(manifest.files)} files)")
        self.stdout.write("It holds secrets: keep it where only you can read it.")
        if manifest.secret_key_elsewhere:
            self.stdout.write("SECRET_KEY comes from the environment and is not in it: keep that too.")
