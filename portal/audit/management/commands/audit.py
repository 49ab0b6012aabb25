from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from portal.audit.models import AuditSeal
from portal.audit.services import seal_pending, verify


class Command(BaseCommand):
    help = "Seal the audit trail or verify its chain."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("action", choices=["seal", "verify"])

    def handle(self, *args: Any, action: str, **options: Any) -> None:
        if action == "seal":
            self.stdout.write(f"Sealed {seal_pending()} entries.")
            return
        faults = list(verify())
        for fault in faults:
            self.stderr.write(fault)
        if faults:
            raise CommandError(f"The chain does not hold: {len(faults)} faults.")
        self.stdout.write(f"The chain holds: {AuditSeal.objects.count()} seals.")
