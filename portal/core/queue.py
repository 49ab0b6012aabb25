"""Send work to Celery by name. Not for: what must not be lost, which stands in the database for a sweep."""

import logging
from typing import Any

from celery import current_app
from kombu.exceptions import OperationalError

_log = logging.getLogger(__name__)


def send(task: str, *args: Any, queue: str = "default") -> None:
    """Send `task` now; a broker that is away is logged, and a sweep finds what it should do. Never raises."""
    try:
        current_app.send_task(task, args=args, retry=False, ignore_result=True, queue=queue)
    except (OperationalError, OSError) as error:
        _log.warning("%s%r waits for the sweep: %s", task, args, error)
