"""`manage.py enrol`: make a host ready from the command line. Safe to run again."""

import os
import sys
import threading
import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import connection

from portal.accounts.models import User
from portal.core.errors import Denied
from portal.hosts import services
from portal.hosts.keys import authorized_line, current_key
from portal.hosts.models import Host
from portal.operations.models import Operation, StepRecord
from portal.operations.registry import kind_of
from portal.operations.runner import carry_on
from portal.operations.services import claim
from portal.operations.states import FINAL, State
from portal.operations.transitions import StaleAttempt

LOOK_SECONDS = 0.5


class Command(BaseCommand):
    #: For a caller in Python alone: the part of the portal that does it by itself, for the trail.
    stealth_options = ("begun_by",)
    help = "Enrol a host, or prove one again that is enrolled: reach it, boot a test guest, pool, images."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name")
        parser.add_argument(
            "uri", help="qemu:///system or qemu+ssh://user@host/system; of Xen with xen in place of qemu"
        )
        parser.add_argument("--pool", required=True, metavar="PATH", help="folder on the host for disks")
        parser.add_argument("--as", required=True, dest="username", help="the admin who does this")
        parser.add_argument("--images", metavar="MANIFEST", help="import the images it lists first")
        parser.add_argument(
            "--host-key", default="", metavar="SHA256:…", help="fingerprint of a host's SSH key; else it asks"
        )
        parser.add_argument("--queue", action="store_true", help="leave the work to the workers")

    def handle(self, *args: Any, **options: Any) -> None:
        """Begin the operation and, unless it is left to the workers, carry it out here."""
        actor = User.objects.filter(username=options["username"]).first()
        if actor is None:
            raise CommandError(f"There is nobody called {options['username']}.")
        try:
            operation = self._begin(actor, options)
            if options["queue"]:
                self.stdout.write(f"{operation}: queued")
                return
            self._finish(operation)
            if operation.kind == services.GREET:
                self._trust(actor, options)
        except (Denied, ValueError, OSError, KeyError) as refused:
            raise CommandError(str(refused)) from refused

    def _begin(self, actor: User, options: dict[str, Any]) -> Operation:
        if options["images"]:
            for image in services.import_images(actor=actor, manifest=Path(options["images"])):
                self.stdout.write(f"image {image.name} {image.version}: known")
        begun_by = options.get("begun_by", "")
        host = Host.objects.filter(name=options["name"], uri=options["uri"]).first()
        if host is None:
            return services.enrol_host(
                actor=actor,
                name=options["name"],
                uri=options["uri"],
                pool_path=options["pool"],
                begun_by=begun_by,
            )
        kinds = (services.ENROL, services.GREET)
        unfinished = Operation.objects.filter(subject=host.topic, kind__in=kinds).exclude(state__in=FINAL)
        if found := unfinished.first():
            return found
        wanted = options["host_key"]
        if host.by_ssh and (not host.host_key or wanted not in ("", host.fingerprint)):
            return services.greet_host(actor=actor, host=host, begun_by=begun_by)
        return services.enrol_again(actor=actor, host=host, pool_path=options["pool"], begun_by=begun_by)

    def _trust(self, actor: User, options: dict[str, Any]) -> None:
        """Confirm the key that the host showed, if somebody says that it is the host's, and enrol it."""
        host = Host.objects.get(name=options["name"])
        key = current_key()
        if key is not None:
            self.stdout.write(f"Line for authorized_keys on the host:\n{authorized_line(key)}")
        shown, wanted = host.offered_fingerprint or host.fingerprint, options["host_key"]
        if not wanted and sys.stdin.isatty():
            answer = input(f"The host shows the key {shown}. Is it the host's (yes/no)? ")
            wanted = shown if answer.strip().lower() == "yes" else ""
        if wanted != shown:
            raise CommandError(
                f"The host shows the key {shown}. Compare it with what `ssh-keygen -lf` prints on the host "
                f"for its key in /etc/ssh, and run this again with --host-key {shown}"
            )
        enrolment = None
        if host.offered_fingerprint:
            enrolment = services.confirm_host_key(actor=actor, host=host, fingerprint=wanted)
            host.refresh_from_db()
        self._finish(enrolment or services.enrol_again(actor=actor, host=host, pool_path=options["pool"]))

    def _finish(self, operation: Operation) -> None:
        """Bring an operation to its end. Raises CommandError unless it succeeded."""
        self._carry_out(operation)
        if operation.state != State.SUCCEEDED:
            raise CommandError(f"{operation}: {State(operation.state).label.lower()}")
        self.stdout.write(f"{operation}: done")

    def _carry_out(self, operation: Operation) -> None:
        """Carry it out here, or follow the worker that was faster; print each step once."""
        printed: set[str] = set()
        over = threading.Event()
        looker = threading.Thread(target=self._look, args=(operation, printed, over), daemon=True)
        claimed = claim(operation.pk, worker=f"enrol-{os.getpid()}")
        looker.start()
        try:
            if claimed is not None:
                carry_on(claimed, worker=f"enrol-{os.getpid()}")
            self._follow(operation)
        except StaleAttempt as taken:
            raise CommandError("A worker took this operation over; look at its page.") from taken
        finally:
            over.set()
            looker.join()
        self._say(operation, printed)

    @staticmethod
    def _follow(operation: Operation) -> None:
        operation.refresh_from_db()
        while operation.state not in FINAL and operation.state not in {State.UNDOING, State.LOST}:
            time.sleep(LOOK_SECONDS)
            operation.refresh_from_db()

    def _look(self, operation: Operation, printed: set[str], over: threading.Event) -> None:
        while not over.wait(LOOK_SECONDS):
            self._say(operation, printed)
        connection.close()

    def _say(self, operation: Operation, printed: set[str]) -> None:
        titles = {step.name: step.title for step in kind_of(operation.kind).steps}
        for record in StepRecord.objects.filter(operation=operation).order_by("index"):
            word = "failed" if record.error_code else record.get_stage_display().lower()
            line = f"{titles.get(record.name, record.name)}: {word}"
            if record.error_code:
                line += f" ({record.error_code}: {record.error_raw})"
            if line not in printed:
                printed.add(line)
                self.stdout.write(line)
