"""Messages over a stream socket, whole or not at all; not for other machines (they are pickled).

`multiprocessing.Connection.recv` would block its reader in the middle of a message whose sender was stopped.
"""

import pickle
import socket
import struct
from typing import Any

_LENGTH = struct.Struct("!I")
_READ_BYTES = 256 * 1024
_READS = 16  # then others have their turn


def send(sock: socket.socket, message: Any) -> None:
    """Send one message. Raises OSError when the other end is gone. Not safe for two threads at once."""
    body = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    sock.sendall(_LENGTH.pack(len(body)) + body)


class Reader:
    """Collect messages from a socket without ever waiting."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._buffer = bytearray()
        self.ended = False

    def read(self) -> list[Any]:
        """Return the messages that are complete; `ended` then says whether the other end is gone."""
        self._fill()
        messages, at = [], 0
        while len(self._buffer) - at >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer, at)
            end = at + _LENGTH.size + length
            if end > len(self._buffer):
                break
            # Only our own child writes here.
            messages.append(pickle.loads(memoryview(self._buffer)[at + _LENGTH.size : end]))  # noqa: S301
            at = end
        del self._buffer[:at]
        return messages

    def _fill(self) -> None:
        for _ in range(_READS):
            try:
                part = self._sock.recv(_READ_BYTES)
            except BlockingIOError:
                return
            except ConnectionError:
                part = b""
            if not part:
                self.ended = True
                return
            self._buffer += part
