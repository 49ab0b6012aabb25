"""`manage.py add_installer`: make an installer's kernel and initrd known as an image. Safe to run again."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from portal.accounts.models import User
from portal.core.errors import Denied
from portal.hosts.installers import add_installer

#: Where Debian's package debian-installer-12-netboot-amd64 puts it.
DEBIAN = "/usr/lib/debian-installer/images/12/amd64/text/debian-installer/amd64"

DEFAULTS = {"title": "Debian 12 installer", "release": "12", "os": "debian12"}
HELP = {"title": "how people see it", "release": "its version", "os": "what osinfo-db calls the system"}


class Command(BaseCommand):
    help = "Add an installer that starts from a network: a folder with its kernel (linux) and initrd.gz."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("source", nargs="?", default=DEBIAN, help=f"the folder, {DEBIAN} by default")
        parser.add_argument("--as", required=True, dest="username", help="the admin who does this")
        parser.add_argument("--name", default="debian-12-installer", help="small letters, digits, hyphens")
        for name, value in DEFAULTS.items():
            parser.add_argument(f"--{name}", help=f"{HELP[name]}, {value!r} unless it was said already")

    def handle(self, *args: Any, **options: Any) -> None:
        """Add it and say what to do next."""
        actor = User.objects.filter(username=options["username"]).first()
        if actor is None:
            raise CommandError(f"There is nobody called {options['username']}.")
        said = {name: value for name in DEFAULTS if (value := options[name]) is not None}
        told = DEFAULTS | said
        try:
            image = add_installer(
                actor=actor,
                source=options["source"],
                name=options["name"],
                title=told["title"],
                version=told["release"],
                os=told["os"],
                typed={"version" if name == "release" else name for name in said},
            )
        except Denied as denied:
            raise CommandError(str(denied)) from denied
        self.stdout.write(f"{image.title} is known, with the digest {image.sha256}.")
        self.stdout.write("Prove each host again on its page: that copies it there. Then make an item of it.")
