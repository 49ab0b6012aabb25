"""`manage.py add_installer`: make an installer's kernel and initrd known as an image. Safe to run again."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from portal.accounts.models import User
from portal.core.errors import Denied
from portal.hosts.installers import add_installer

#: Where Debian's package debian-installer-12-netboot-amd64 puts it.
DEBIAN = "/usr/lib/debian-installer/images/12/amd64/text/debian-installer/amd64"


class Command(BaseCommand):
    help = "Add an installer that starts from a network: a folder with its kernel (linux) and initrd.gz."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("source", nargs="?", default=DEBIAN, help=f"the folder, {DEBIAN} by default")
        parser.add_argument("--as", required=True, dest="username", help="the admin who does this")
        parser.add_argument("--name", default="debian-12-installer", help="small letters, digits, hyphens")
        parser.add_argument("--title", default="Debian 12 installer")
        parser.add_argument("--release", default="12", help="its version")
        parser.add_argument("--os", default="debian12", help="what osinfo-db calls the system")

    def handle(self, *args: Any, **options: Any) -> None:
        """Add it and say what to do next."""
        actor = User.objects.filter(username=options["username"]).first()
        if actor is None:
            raise CommandError(f"There is nobody called {options['username']}.")
        told = {name: options[name] for name in ("source", "name", "title", "os")}
        try:
            image = add_installer(actor=actor, version=options["release"], **told)
        except Denied as denied:
            raise CommandError(str(denied)) from denied
        self.stdout.write(f"{image.title} is known, with the digest {image.sha256}.")
        self.stdout.write("Prove each host again on its page: that copies it there. Then make an item of it.")
