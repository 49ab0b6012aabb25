"""The child's side of `pool`: answer calls to one driver until the pipe closes. Not to be imported."""

import os
import sys
import threading
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

from portal.drivers.errors import DriverError
from portal.drivers.registry import driver_for


def _read(pipe: Connection, calls: "SimpleQueue[Any]") -> None:
    """Pass calls on; when the parent is gone, go too, even from the middle of a hanging call."""
    try:
        while True:
            calls.put(pipe.recv())
    except (EOFError, OSError):
        os._exit(0)


def main(descriptor: int, uri: str) -> None:
    """Serve calls on the socket `descriptor` with a driver for `uri`, opened at the first call."""
    pipe = Connection(descriptor)
    calls: SimpleQueue[Any] = SimpleQueue()
    threading.Thread(target=_read, args=(pipe, calls), daemon=True).start()
    driver = None
    while True:
        verb, args = calls.get()
        try:
            driver = driver or driver_for(uri)
            pipe.send((True, getattr(driver, verb)(*args)))
        except DriverError as error:
            pipe.send((False, error))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
