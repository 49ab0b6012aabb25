import asyncio
import signal
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from portal.hosts.images.keeper import Keeper
from vms.console.broker import Broker
from vms.console.wire import socket_path


class Command(BaseCommand):
    help = "Open consoles on hypervisors, and keep what browsers send, for the web process, until stopped."

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            asyncio.run(self._serve())
        except BlockingIOError as error:
            raise CommandError("A console broker runs here already.") from error

    async def _serve(self) -> None:
        broker = Broker(socket_path())
        stopped = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        # Its lock is the keeper's too: of both there is one a site.
        await broker.start()
        keeper = Keeper(settings.UPLOADS_SOCKET)
        try:
            keeper.start()
        except OSError as error:
            # Uploads go the longer way then; consoles need not end for it.
            self.stderr.write(f"No files of browsers are kept here: {error}")
        self.stdout.write(f"Consoles are served at {broker.path}.")
        self.stdout.flush()
        await stopped.wait()
        keeper.stop()
        await broker.stop()
