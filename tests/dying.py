"""Worker processes that die by SIGKILL at a chosen point, forked from one that has Django ready.

A worker is told a task, an operation's id (claim it) or `reap` (take over what lapsed); a point, like
`before:disk` or `undo-after:disk`, or `never`; and the step that fails, or `none`. Starting Python and
Django for each worker would take most of these tests' time. Not for: the steps, which who calls `serve` has.
"""

import json
import os
import signal
import subprocess
import sys
import traceback
from pathlib import Path
from typing import NamedTuple

from django.db import connection
from django.urls import reverse

ROOT = Path(__file__).resolve().parents[1]


class Told(NamedTuple):
    """What this worker was told."""

    task: str
    point: str
    failing: str


told = Told("", "never", "none")


def die_at(point):
    if point == told.point:
        os.kill(os.getpid(), signal.SIGKILL)


def serve():
    """Fork a worker for each line of standard input and answer its exit status, until the input ends."""
    # Here and not in each worker, which would take longer to import than to work.
    import portal.celery  # noqa: F401 (dispatch needs the current app)
    from portal.operations import runner, services  # noqa: F401

    reverse("first_page")  # which imports the views
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            _worker(Told(*json.loads(line)))
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def _worker(orders):
    """Carry out what `orders` name, to the end or to their point, in this process alone."""
    global told
    told = orders
    status = 1
    try:
        _work()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _work():
    from portal.operations import runner, services

    if told.task == "reap":
        for operation in services.take_over_lapsed(worker="reaper"):
            runner.carry_on(operation, worker="reaper")
        return
    operation = services.claim(int(told.task), worker="worker")
    if operation is not None:
        runner.carry_on(operation, worker="worker")


def database_url():
    """Return the address of the tests' database for a process of its own."""
    settings = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{settings['NAME']}"
    return f"postgresql://{settings['USER']}@/{settings['NAME']}?host={settings['OPTIONS']['host']}"


class Workers:
    """Workers of the module `name`, which calls `serve`; call it for one worker. Close it in the end."""

    def __init__(self, name):
        self._parent = subprocess.Popen(
            [sys.executable, "-m", name],
            cwd=ROOT,
            env={**os.environ, "DATABASE_URL": database_url(), "DJANGO_SETTINGS_MODULE": "portal.settings"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, task, point="never", failing="none"):
        """Run a worker to its end and return its exit status."""
        self._parent.stdin.write(json.dumps([str(task), point, failing]) + "\n")
        self._parent.stdin.flush()
        return int(self._parent.stdout.readline())

    def close(self):
        self._parent.stdin.close()
        self._parent.wait(timeout=10)
        self._parent.stdout.close()
