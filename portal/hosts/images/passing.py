"""What passes between the web process, the worker and the keeper on its Unix socket. Not for: files.

A question is one line of JSON. "append" names a token and an offset, is answered by {"go": true} or a
refusal, and then has bytes until that side is shut; then comes the answer. "digest" names a token.
"""

import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.conf import settings

#: The most bytes of one chunk.
MOST_CHUNK = 16 << 20
#: Seconds in which the other side must take or give a byte; a disk may keep it from that for some.
PATIENCE = 60.0
_LONGEST = 1000  # bytes of a line


class Away(Exception):
    """No keeper answers."""


@dataclass(frozen=True, slots=True)
class Question:
    verb: str
    token: UUID
    offset: int


class Talk:
    """One connection, from either side."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(PATIENCE)
        self._connection, self._reader = connection, connection.makefile("rb")
        #: The other side went away in the midst of its bytes.
        self.broken = False

    def question(self) -> Question:
        """Return what is asked. Raises ValueError, OSError."""
        told = self.line()
        try:
            verb, offset = str(told["verb"]), int(told.get("offset", 0))
            if verb not in {"append", "digest"} or offset < 0:
                raise ValueError(f"{verb!r} at {offset}")
            return Question(verb, UUID(str(told["token"])), offset)
        except (KeyError, TypeError) as error:
            raise ValueError("a question that lacks something") from error

    def answer(self, **told: Any) -> None:
        """Send one line. Raises OSError."""
        self._connection.sendall(json.dumps(told).encode() + b"\n")

    def line(self) -> dict[str, Any]:
        """Return one line. Raises ValueError, OSError."""
        told = json.loads(self._reader.readline(_LONGEST))
        if not isinstance(told, dict):
            raise ValueError("a line without fields")
        return told

    def read_into(self, buffer: memoryview) -> int:
        """Fill a buffer as far as bytes come; return how many did, 0 at their end. Raises OSError."""
        try:
            return self._reader.readinto(buffer)  # type: ignore[attr-defined,no-any-return]
        except OSError:
            self.broken = True
            raise

    def send(self, pieces: Iterator[bytes]) -> None:
        """Send bytes and shut this side. Stops where the other side takes no more; its answer says why."""
        for piece in pieces:
            try:
                self._connection.sendall(piece)
            except OSError:
                return
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)


@contextmanager
def _talk() -> Iterator[Talk]:
    """Connect to the keeper. Raises Away."""
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.settimeout(PATIENCE)
            connection.connect(os.fspath(settings.UPLOADS_SOCKET))
        except OSError as error:
            raise Away(str(error)) from error
        yield Talk(connection)


def _asked(act: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return act()
    except (ValueError, OSError) as error:
        raise Away(str(error)) from error


def append(token: UUID, offset: int, pieces: Iterator[bytes]) -> dict[str, Any]:
    """Let the keeper write bytes behind the first `offset`; return its answer. Raises Away.

    What reading the pieces raises is raised; what came until then is kept.
    """
    with _talk() as talk:

        def ask() -> dict[str, Any]:
            talk.answer(verb="append", token=str(token), offset=offset)
            return talk.line()

        told = _asked(ask)
        if "go" not in told:
            return told
        talk.send(pieces)
        return _asked(talk.line)


def digest(token: UUID, length: int) -> str:
    """Return the SHA-256 of a file of that length that is sealed; '' where the keeper does not know it."""
    with suppress(Away), _talk() as talk:

        def ask() -> dict[str, Any]:
            talk.answer(verb="digest", token=str(token))
            return talk.line()

        told = _asked(ask)
        return str(told.get("sha256", "")) if told.get("length") == length else ""
    return ""
