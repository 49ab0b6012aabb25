"""Fetch a file that a person named by its address, and nothing that the portal alone can reach.

A name is looked up once for each request; every address that it has must be allowed, and the connection
is made to one of those very addresses, so that a second answer of the DNS cannot lead elsewhere. Each
redirect is looked at like the first address. No proxy of the environment is asked: it would look names up by
itself.
Not for: whether the file is the right one, which its SHA-256 tells.
"""

import http.client
import ipaddress
import math
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

from portal.hosts.images.ranges import Network, is_allowed, is_closed

CHUNK = 1 << 20
MOST_REDIRECTS = 5
#: Seconds for a connection, and for each piece of an answer.
PATIENCE = 30.0
#: Seconds at most between two looks at whether to go on, while anything arrives.
LOOK_EVERY = 1.0
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class FetchFailed(Exception):
    """The file cannot be had; `code` selects the sentence, `raw` is the word in it."""

    def __init__(self, code: str, raw: str = "", *, retryable: bool = False) -> None:
        super().__init__(f"{code}: {raw}")
        self.code, self.raw, self.retryable = code, raw, retryable


@dataclass(frozen=True)
class Limits:
    """What a fetch may take: bytes, seconds, and the networks allowed beyond the public ones.

    `trusted` is a file of certificates to trust instead of the system's, '' for those. `opened` tells the
    networks that admins allow, and is asked before each connection: they may take one back meanwhile.
    """

    most_bytes: int
    seconds: float
    networks: Sequence[Network] = ()
    trusted: str = ""
    opened: Callable[[], Sequence[Network]] = tuple


def without_query(url: str) -> str:
    """Return an address as it is told and kept: its query may be a key to the file."""
    return url.partition("#")[0].partition("?")[0]


def _named(url: str) -> str:
    return without_query(url)[:200]


def check_url(url: str) -> SplitResult:
    """Return the parts of an address that can be fetched. Raises FetchFailed; looks nothing up."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 raises for what is no port
    except ValueError as error:
        raise FetchFailed("fetch_address", _named(url)) from error
    if parts.scheme not in {"http", "https"}:
        raise FetchFailed("fetch_scheme", parts.scheme or _named(url)[:50])
    # Other letters come as %-codes; written out they are no request that HTTP knows.
    odd = any(ord(letter) <= 32 or ord(letter) >= 127 for letter in url)
    if not parts.hostname or parts.username or parts.password or odd or "\\" in url:
        raise FetchFailed("fetch_address", _named(url))
    return parts


def addresses_of(
    parts: SplitResult, networks: Sequence[Network], opened: Sequence[Network] = ()
) -> list[Any]:
    """Return what a name leads to, as `getaddrinfo` does. Raises FetchFailed when any is not allowed."""
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    except (OSError, UnicodeError) as error:
        raise FetchFailed("fetch_unresolved", host, retryable=True) from error
    for *_rest, place in found:
        address = ipaddress.ip_address(str(place[0]).partition("%")[0])
        if not is_allowed(address, networks, opened):
            code = "fetch_closed" if is_closed(address) else "fetch_private"
            raise FetchFailed(code, f"{host} ({address})" if host != str(address) else host)
    return found


def _connect(found: Sequence[Any], timeout: float) -> socket.socket:
    """Connect to the first of the addresses that takes it. Raises OSError."""
    last: OSError = OSError("no address")
    for family, kind, proto, _name, place in found:
        connection = socket.socket(family, kind, proto)
        connection.settimeout(timeout)
        try:
            connection.connect(place)
        except OSError as error:
            connection.close()
            last = error
        else:
            return connection
    raise last


def _cut(line: socket.socket) -> None:
    """End a connection under whoever reads it; one that has ended already stays so."""
    with suppress(OSError):
        line.shutdown(socket.SHUT_RDWR)


class _Fetch:
    """One file on its way, through its redirects."""

    def __init__(self, target: Path, limits: Limits, check: Callable[[int], None]) -> None:
        self._target, self._limits, self._check = target, limits, check
        self._end = time.monotonic() + limits.seconds

    def run(self, url: str) -> None:
        for _hop in range(MOST_REDIRECTS + 1):
            parts = check_url(url)
            found = addresses_of(parts, self._limits.networks, self._limits.opened())
            try:
                onward = self._ask(parts, found)
            except TimeoutError as error:
                raise self._late("it stopped answering") from error
            except ssl.SSLError as error:
                if time.monotonic() >= self._end:
                    raise self._late("") from error
                raise FetchFailed("fetch_tls", str(error.reason or error)) from error
            except (OSError, http.client.HTTPException) as error:
                raise self._late(str(error) or type(error).__name__) from error
            if onward is None:
                return
            try:
                url = urljoin(url, onward)
            except ValueError as error:
                raise FetchFailed("fetch_address", _named(onward)) from error
        raise FetchFailed("fetch_redirects")

    def _late(self, why: str) -> FetchFailed:
        if time.monotonic() >= self._end:
            return FetchFailed("fetch_late", f"{self._limits.seconds / 60:.0f}")
        return FetchFailed("fetch_broken", why, retryable=True)

    def _ask(self, parts: SplitResult, found: Sequence[Any]) -> str | None:
        """Take the file, or return where it is said to be. Raises FetchFailed, OSError, HTTPException."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise self._late("")
        connection = _connect(found, min(PATIENCE, left))
        # A server that sends a letter now and then passes every timeout of a socket; not this one. It holds
        # a descriptor of its own: TLS takes the connection's away from the socket that is wrapped.
        line = connection.dup()
        watchdog = threading.Timer(left, _cut, [line])
        watchdog.daemon = True
        watchdog.start()
        try:
            if parts.scheme == "https":
                trusted = ssl.create_default_context(cafile=self._limits.trusted or None)
                connection = trusted.wrap_socket(connection, server_hostname=parts.hostname)
            talk = http.client.HTTPConnection(parts.hostname or "", parts.port)
            talk.sock = connection
            return self._talk(talk, parts)
        finally:
            watchdog.cancel()
            # An answer that is still held, as by an error, keeps its connection open when that is closed.
            _cut(line)
            line.close()
            connection.close()

    def _talk(self, talk: http.client.HTTPConnection, parts: SplitResult) -> str | None:
        have = self._target.stat().st_size if self._target.exists() else 0
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        talk.putrequest("GET", path, skip_host=True, skip_accept_encoding=True)
        talk.putheader("Host", parts.netloc)
        talk.putheader("User-Agent", "Gatehouse")
        talk.putheader("Accept-Encoding", "identity")
        if have:
            talk.putheader("Range", f"bytes={have}-")
        talk.endheaders()
        answer = talk.getresponse()
        if answer.status in _REDIRECTS:
            onward = answer.getheader("Location")
            if not onward:
                raise FetchFailed("fetch_status", str(answer.status))
            return onward
        if have and answer.status == 416:
            # Whole already, or longer than it is there: the SHA-256 tells.
            return None
        if answer.status not in {200, 206}:
            raise FetchFailed("fetch_status", str(answer.status), retryable=answer.status >= 500)
        self._take(answer, have if answer.status == 206 and have else 0)
        return None

    def _take(self, answer: http.client.HTTPResponse, have: int) -> None:
        """Write the body behind the first `have` bytes. Raises FetchFailed, OSError."""
        whole = None if answer.length is None else have + answer.length
        self._fit(whole or 0)
        looked = -math.inf
        with self._target.open("r+b" if have else "wb") as file:
            file.seek(have)
            # What is there now, not a full chunk: who sends slowly would keep everybody from looking.
            while chunk := answer.read1(CHUNK if whole is None else min(CHUNK, whole - have)):
                have += len(chunk)
                self._fit(have)
                _write(file, chunk)
                if time.monotonic() - looked >= LOOK_EVERY:
                    self._check(have)
                    looked = time.monotonic()
                if time.monotonic() >= self._end:
                    raise self._late("")
            file.truncate()
        # A connection that was cut for its time ends like one that has sent all.
        if time.monotonic() >= self._end:
            raise self._late("")
        if whole is not None and have < whole:
            raise FetchFailed("fetch_broken", f"{whole - have} bytes are missing", retryable=True)

    def _fit(self, length: int) -> None:
        if length > self._limits.most_bytes:
            raise FetchFailed("image_long", f"{self._limits.most_bytes / (1 << 30):.1f} GiB")


def _write(file: Any, chunk: bytes) -> None:
    try:
        file.write(chunk)
    except OSError as error:
        raise FetchFailed("store_full", error.strerror or "") from error


def fetch(url: str, target: Path, *, limits: Limits, check: Callable[[int], None]) -> None:
    """Fetch `url` into `target`; what is there already is taken for the file's beginning and goes on.

    `check` is called with the bytes that are there, about each second while some arrive, and may raise.
    Raises FetchFailed.
    """
    _Fetch(target, limits, check).run(url)
