"""What passes between the web process and the broker on their Unix socket. Not for: the browser's socket.

The web sends one HELLO frame: JSON with the ticket's secret and for whom it is. After a good STATUS it sends
what is typed as raw bytes.
The broker sends frames: one STATUS ({"code": ""} when the console is open), then DATA, at last one END.
"""

import asyncio
import json
import struct
from pathlib import Path
from typing import Any

from portal.settings.paths import STATE_DIR

HEADER = struct.Struct(">cI")
HELLO, STATUS, DATA, END = b"H", b"S", b"D", b"E"
CHUNK = 64 * 1024  # the most bytes in one frame, and held on the way in each direction
#: Seconds in which who does not take bytes must take some.
PATIENCE = 30.0
Broken = (asyncio.IncompleteReadError, ConnectionError, ValueError)


def socket_path() -> Path:
    """Return where the broker of this site listens."""
    return STATE_DIR / "run" / "consoles.sock"


def pack(kind: bytes, body: bytes) -> bytes:
    """Return one frame."""
    return HEADER.pack(kind, len(body)) + body


def pack_json(kind: bytes, fields: dict[str, Any]) -> bytes:
    """Return one frame with JSON in it."""
    return pack(kind, json.dumps(fields).encode())


async def read_frame(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Return the next frame's kind and body. Raises one of `Broken` when there is none."""
    kind, length = HEADER.unpack(await reader.readexactly(HEADER.size))
    if length > CHUNK:
        raise ValueError(f"a frame of {length} bytes")
    return kind, await reader.readexactly(length)


def read_fields(body: bytes) -> dict[str, Any]:
    """Return the fields of a frame with JSON in it. Raises ValueError."""
    fields = json.loads(body)
    if not isinstance(fields, dict):
        raise ValueError("a frame without fields")
    return fields
