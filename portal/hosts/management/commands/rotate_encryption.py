"""`manage.py rotate_encryption`: a new key for what the database holds encrypted. Safe to run again."""

from typing import Any

from django.core.management.base import BaseCommand

from portal.core.encryption import rotate


class Command(BaseCommand):
    help = "Encrypt everything that is encrypted in the database with a new key, and forget the old ones."

    def handle(self, *args: Any, **options: Any) -> None:
        """Rotate, and say how much was encrypted anew."""
        self.stdout.write(f"{rotate()} encrypted with a new key; back the key file up again.")
