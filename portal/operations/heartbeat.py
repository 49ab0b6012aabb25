"""Keep an operation's heartbeat while a step takes long. Not for: deciding who is dead."""

import logging
import threading
from types import TracebackType
from typing import Self

from django.db import DatabaseError, connection

from portal.operations.models import Operation
from portal.operations.services import beat
from portal.operations.transitions import StaleAttempt

#: Seconds; several fit into services.HEARTBEAT_LAPSE.
INTERVAL = 4.0
_log = logging.getLogger(__name__)


class Heartbeat:
    """Beats for `operation` from a thread of its own until the block ends or somebody takes it over."""

    def __init__(self, operation: Operation, *, interval: float = INTERVAL) -> None:
        self._operation = operation
        self._interval = interval
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"beat-{operation.pk}", daemon=True)

    def _beat(self) -> None:
        try:
            while not self._over.wait(self._interval):
                try:
                    beat(self._operation)
                except DatabaseError as error:
                    # The next beat may get through; when none does, the lapse is the truth.
                    _log.warning("heartbeat of %s failed: %s", self._operation, error)
        except StaleAttempt:
            _log.warning("%s was taken over", self._operation)
        finally:
            connection.close()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
