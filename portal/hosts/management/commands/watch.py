"""`manage.py watch`: keep the picture of the estate fresh until told to stop."""

import signal
import threading
from typing import Any

from django.core.management.base import BaseCommand

from portal.hosts.watcher import Watcher


class Command(BaseCommand):
    help = "Watch every enrolled host and write what is seen. Ends on SIGTERM or SIGINT."

    def handle(self, *args: Any, **options: Any) -> None:
        """Watch until a signal; one such process for all hosts."""
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        watcher = Watcher()
        self.stdout.write("watching")
        try:
            watcher.run(stop)
        finally:
            watcher.close()
        self.stdout.write("stopped")
