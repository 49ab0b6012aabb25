"""What the commands `inspect_domain`, `inspect_network` and `inspect_volume` share."""

import json
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any, ClassVar

from django.core.management.base import BaseCommand, CommandError

from portal.drivers.errors import InvalidSpec
from portal.drivers.inspection import LONGEST, Kind, inspect


class InspectCommand(BaseCommand):
    """Print what the portal understands of a definition. Needs no database and changes nothing.

    Ends with 0 for everything that libvirt would take, with 1 and a sentence for what is none of the kind.
    """

    kind: ClassVar[Kind]
    requires_system_checks = []  # noqa: RUF012 (Django declares it so)

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", metavar="FILE.xml", help="as libvirt prints it; - reads standard input")

    def handle(self, *args: Any, **options: Any) -> None:
        """Print one JSON object: kind, understood, kept."""
        name = options["file"]
        try:
            found = inspect(self.kind, self._read(name))
        except OSError as error:
            raise CommandError(f"{name}: {error.strerror}") from error
        except InvalidSpec as error:
            # It may quote the definition: see below.
            why = str(error).encode("ascii", "backslashreplace").decode()
            raise CommandError(f"{name}: {why}") from error
        told = {"kind": self.kind, "understood": found.understood, "kept": found.kept}
        # In ASCII: what somebody wrote into a definition must not reach a terminal as it is.
        self.stdout.write(json.dumps(told, indent=2))

    @staticmethod
    def _read(name: str) -> bytes:
        if name == "-":
            return sys.stdin.buffer.read(LONGEST + 1)
        with Path(name).open("rb") as file:
            return file.read(LONGEST + 1)
