"""What passes between a console's child and its parent; not for people, and light to import.

The child sends frames: one byte of kind, four of length, then the body. First comes one STATUS (empty JSON,
or the error that kept the console shut), then DATA, at last one END with its reason. The parent sends the
bytes that were typed, as they are.
"""

import json
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from portal.drivers import errors

HEADER = struct.Struct(">cI")
STATUS, DATA, END = b"S", b"D", b"E"
CHUNK = 64 * 1024  # the most bytes in one frame, and held on the way in each direction
RAW_LIMIT = 2000


class ConsoleKind(StrEnum):
    """Which console of a machine."""

    SERIAL = "serial"
    VNC = "vnc"


class EndReason(StrEnum):
    """Why a console ended."""

    OFF = "off"  # the machine powered off, restarted cold, or is gone
    REPLACED = "replaced"  # somebody opened the same console later
    HOST_LOST = "host_lost"  # the connection to the host broke
    CLOSED = "closed"  # we closed it, or the host did without a word
    FAILED = "failed"  # the child died


@dataclass(frozen=True, slots=True)
class ConsoleEnd:
    """Why a console ended; `raw` is the host's own text for operators."""

    reason: EndReason
    raw: str = ""


def send_frame(link: socket.socket, kind: bytes, body: bytes) -> None:
    """Send one frame, waiting while the other side is slow."""
    link.sendall(HEADER.pack(kind, len(body)) + body)


def pack_error(error: errors.DriverError) -> bytes:
    """Return a STATUS body for an error."""
    fields = {"code": error.code, "raw": error.raw[:RAW_LIMIT], "retryable": error.retryable}
    return json.dumps(fields).encode()


def unpack_error(body: bytes) -> errors.DriverError | None:
    """Return the error of a STATUS body, None when the console is open."""
    fields = json.loads(body)
    if not fields:
        return None
    kinds = {kind.code: kind for kind in _kinds(errors.DriverError)}
    return kinds[fields["code"]](fields["raw"], retryable=fields["retryable"])


def _kinds(kind: type[errors.DriverError]) -> Iterator[type[errors.DriverError]]:
    yield kind
    for narrower in kind.__subclasses__():
        yield from _kinds(narrower)


def pack_end(end: ConsoleEnd) -> bytes:
    """Return an END body."""
    return json.dumps({"reason": end.reason, "raw": end.raw[:RAW_LIMIT]}).encode()


def unpack_end(body: bytes) -> ConsoleEnd:
    """Return the reason in an END body."""
    fields = json.loads(body)
    return ConsoleEnd(EndReason(fields["reason"]), fields["raw"])
