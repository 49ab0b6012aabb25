from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from portal.audit.models import AuditSeal
from portal.audit.services import chain_head, seal_pending, verify


class Command(BaseCommand):
    help = "Seal the audit trail or verify its chain."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("action", choices=["seal", "verify"])
        parser.add_argument(
            "--head",
            help="a last seal that you kept, as verify or a report told it: it must be in the chain still",
        )

    def handle(self, *args: Any, action: str, **options: Any) -> None:
        if action == "seal":
            self.stdout.write(f"Sealed {seal_pending()} entries.")
            return
        # Before the look at the chain, which may grow meanwhile.
        head = chain_head()
        faults = list(verify())
        kept = (options["head"] or "").strip().lower()
        if kept and not AuditSeal.objects.filter(seal=kept).exists():
            faults.append(f"The seal {kept} is not in the chain: it was cut off or written anew.")
        for fault in faults:
            self.stderr.write(fault)
        if faults:
            raise CommandError(f"The chain does not hold: {len(faults)} faults.")
        self.stdout.write(f"The chain holds: {AuditSeal.objects.count()} seals.")
        self.stdout.write(f"Its last seal, to keep elsewhere: {head.seal}")
