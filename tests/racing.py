"""Run the same thing in many threads at once, each with a database connection of its own."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from django.db import connection

WAITING = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


def race(functions, *, at_once=20):
    """Run `functions`, `at_once` side by side from one starting shot; return results or errors in order."""
    start = threading.Barrier(min(at_once, len(functions)))
    first = threading.local()

    def runner(function):
        if not hasattr(first, "started"):
            first.started = True
            start.wait(30)
        try:
            return function()
        except Exception as error:
            return error
        finally:
            connection.close()

    with ThreadPoolExecutor(min(at_once, len(functions))) as pool:
        return list(pool.map(runner, functions))


def cross(monkeypatch, first, second, where, name, *, after=False, limit=1.0):
    """Let `first` stop where it calls `where.name` until `second` waits for a row that it has locked.

    `after` stops behind that call. It goes on at the latest after `limit` seconds, on SQLite at once: there
    the second cannot begin to write meanwhile. Returns the two results or errors.
    """
    real, stopped = getattr(where, name), threading.Event()

    def stop():
        if not stopped.is_set():
            stopped.set()
            _until_somebody_waits(limit)

    def stopping(*args, **options):
        if not after:
            stop()
        answer = real(*args, **options)
        if after:
            stop()
        return answer

    monkeypatch.setattr(where, name, stopping)

    def late():
        stopped.wait(30)
        return second()

    return race([first, late])


def _until_somebody_waits(limit):
    end = time.monotonic() + limit
    while connection.vendor == "postgresql" and time.monotonic() < end:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_stat_clear_snapshot()")
            cursor.execute(WAITING)
            if cursor.fetchone():
                return
        time.sleep(0.01)
