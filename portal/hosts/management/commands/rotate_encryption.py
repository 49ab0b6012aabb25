"""`manage.py rotate_encryption`: a new key for what the database holds encrypted. Safe to run again."""

from typing import Any

from django.core.management.base import BaseCommand
from django.db import transaction

from portal.audit import services as audit
from portal.core.encryption import rotate


class Command(BaseCommand):
    help = "Encrypt everything that is encrypted in the database with a new key, and forget the old ones."

    def handle(self, *args: Any, **options: Any) -> None:
        """Rotate, record it in the trail, and say how much was encrypted anew."""
        count = rotate()
        # Not around rotate(): it may forget the old keys only once what it wrote is committed.
        with transaction.atomic():
            audit.record(
                actor="rotate_encryption",
                verb="encryption.rotated",
                target=audit.Rowless("core.encryption", "Encryption key"),
                after={"encrypted": count},
            )
        self.stdout.write(f"{count} encrypted with a new key; back the key file up again.")
