"""Fetching a file by its address: only from where people may send the portal, whatever the address says."""

import hashlib
import http.server
import ipaddress
import secrets
import socket
import ssl
import subprocess
import threading
import time
from contextlib import suppress
from types import SimpleNamespace

import pytest

from portal.hosts.images import fetching
from portal.hosts.images.fetching import FetchFailed, Limits, fetch

HERE = [ipaddress.ip_network("127.0.0.0/8")]
MIB = 1 << 20


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        site = self.server.site
        site.asked.append((self.path, self.headers.get("Range"), self.headers["Host"]))
        if self.path in site.redirects:
            self.send_response(302)
            self.send_header("Location", site.redirects[self.path])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if self.path.partition("?")[0] != "/file":
            self.send_error(404)
            return
        start = 0
        if self.headers.get("Range") and site.ranges:
            start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
            if start >= len(site.body):
                self.send_error(416)
                return
        body = site.body[start:]
        self.send_response(206 if start else 200)
        if site.told is not None:
            self.send_header("Content-Length", str(site.told - start))
        self.end_headers()
        self.wfile.write(body[: site.breaks_after] if site.breaks_after is not None else body)

    def log_message(self, *_):
        pass


@pytest.fixture
def site():
    """A server on the loopback, what it serves, and what it was asked."""
    body = secrets.token_bytes(3 * MIB)
    found = SimpleNamespace(body=body, told=len(body), redirects={}, asked=[], breaks_after=None, ranges=True)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.site, found.port = found, server.server_port
    found.url = f"http://127.0.0.1:{found.port}/file"
    thread = threading.Thread(target=server.serve_forever, args=[0.02], daemon=True)
    thread.start()
    yield found
    server.shutdown()
    server.server_close()


def take(url, target, networks=HERE, most=10 * MIB, seconds=60.0, check=lambda have: None):
    fetch(url, target, limits=Limits(most, seconds, networks), check=check)


def code(url, target, **changes):
    with pytest.raises(FetchFailed) as failed:
        take(url, target, **changes)
    return failed.value.code


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.1",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "224.0.0.1",
        "255.255.255.255",
        "240.0.0.1",
        "198.18.0.1",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:10.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "[2001:0:4136:e378:8000:63bf:80ff:fffe]",
        "[fe80::1]",
        "[fe80::1%25lo]",
        "[fc00::1]",
        "[fd12:3456::1]",
        "[ff02::1]",
    ],
)
def test_what_is_not_public_is_refused_in_every_spelling(host, site, tmp_path, monkeypatch):
    """Red when addresses are compared as they are written, or only the outer one of an IPv6 address."""
    monkeypatch.setattr(fetching, "_connect", lambda *_: pytest.fail("connected"))
    assert code(f"http://{host}:{site.port}/file", tmp_path / "a", networks=[]) in {
        "fetch_private",
        "fetch_closed",
        "fetch_unresolved",
    }
    assert site.asked == []


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("ftp://example.org/a", "fetch_scheme"),
        ("file:///etc/shadow", "fetch_scheme"),
        ("gopher://example.org/", "fetch_scheme"),
        ("/etc/shadow", "fetch_scheme"),
        ("http://", "fetch_address"),
        ("http://user:word@example.org/", "fetch_address"),
        ("http://example.org:99999/", "fetch_address"),
        ("http://example.org/a b", "fetch_address"),
        ("http://example.org/\u00fc.iso", "fetch_address"),
        ("http://[x", "fetch_address"),
        ("http://example.org/\r\nHost: x", "fetch_address"),
        ("http://example.org\\@127.0.0.1/", "fetch_address"),
    ],
)
def test_other_addresses_are_refused_before_anything_is_looked_up(url, wanted, tmp_path, monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_a, **_k: pytest.fail("looked up"))
    assert code(url, tmp_path / "a") == wanted


def answers(monkeypatch, *rounds):
    """Let each look-up of a name answer with the next of `rounds`."""
    waiting = list(rounds)

    def getaddrinfo(host, port, **_kind):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in waiting.pop(0)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def test_a_name_with_one_private_address_among_public_ones_is_refused(site, tmp_path, monkeypatch):
    """Red when the first address alone is looked at."""
    answers(monkeypatch, ["93.184.216.34", "127.0.0.1"])
    assert code(f"http://example.org:{site.port}/file", tmp_path / "a", networks=[]) == "fetch_closed"
    assert site.asked == []


def test_the_connection_goes_to_the_address_that_was_checked(site, tmp_path, monkeypatch):
    """Red when the name is looked up a second time to connect: the second answer would be another."""
    answers(monkeypatch, ["127.0.0.1"])
    take(f"http://example.org:{site.port}/file", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == site.body
    assert site.asked == [("/file", None, f"example.org:{site.port}")]


@pytest.mark.parametrize(
    ("to", "wanted"),
    [
        ("http://10.0.0.1/file", "fetch_private"),
        ("http://[::1]/file", "fetch_closed"),
        ("file:///etc/shadow", "fetch_scheme"),
        ("//169.254.169.254/latest/", "fetch_closed"),
        ("/again", "fetch_redirects"),
        ("http://[x", "fetch_address"),
        ("/\u00fc", "fetch_address"),
    ],
)
def test_each_redirect_is_looked_at_again(site, tmp_path, to, wanted):
    """Red when only the first address is checked."""
    site.redirects = {"/first": to, "/again": "/again"}
    assert code(f"http://127.0.0.1:{site.port}/first", tmp_path / "a") == wanted


@pytest.fixture
def at(site, monkeypatch):
    """Let each look-up answer with the next of `rounds`, and the site answer at every address."""
    connected = []
    real = fetching._connect

    def connect(found, timeout):
        connected.append([place[0] for *_rest, place in found])
        return real([(*rest, ("127.0.0.1", site.port)) for *rest, _place in found], timeout)

    monkeypatch.setattr(fetching, "_connect", connect)
    return lambda *rounds: answers(monkeypatch, *rounds) or connected


def opened(*rounds):
    """Return what tells the networks that admins allow, other ones each time it is asked."""
    waiting = [[ipaddress.ip_network(text) for text in texts] for texts in rounds]
    return lambda: waiting.pop(0) if len(waiting) > 1 else waiting[0]


def take_by(site, target, *rounds, path="/file"):
    limits = Limits(10 * MIB, 60.0, [], opened=opened(*rounds))
    fetch(f"http://mirror.example:{site.port}{path}", target, limits=limits, check=lambda have: None)


def test_what_an_admin_opened_is_fetched_from(site, tmp_path, at):
    """Red when a fetch does not ask what admins allow, or looks the name up once more to connect."""
    connected = at(["10.20.0.5"])
    take_by(site, tmp_path / "a", ["10.20.0.0/16"])
    assert (tmp_path / "a").read_bytes() == site.body and connected == [["10.20.0.5"]]


@pytest.mark.parametrize(
    ("second", "wanted"),
    [
        ("10.21.0.5", "fetch_private"),
        ("127.0.0.1", "fetch_closed"),
        ("169.254.169.254", "fetch_closed"),
        ("100.100.100.200", "fetch_closed"),
    ],
)
def test_a_redirect_out_of_what_was_opened_is_refused(site, tmp_path, at, second, wanted):
    """Red when only the first address is held against what admins allow, or a closed one may be opened."""
    site.redirects = {"/first": "/file"}
    connected = at(["10.20.0.5"], [second])
    with pytest.raises(FetchFailed) as failed:
        rows = ["10.20.0.0/16", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"]
        take_by(site, tmp_path / "a", rows, path="/first")
    assert failed.value.code == wanted and connected == [["10.20.0.5"]]


def test_one_address_of_a_name_outside_what_was_opened_refuses_all(site, tmp_path, at):
    connected = at(["10.20.0.5", "10.21.0.5"])
    with pytest.raises(FetchFailed) as failed:
        take_by(site, tmp_path / "a", ["10.20.0.0/16"])
    assert failed.value.code == "fetch_private" and connected == []


def test_what_is_taken_back_meanwhile_counts_at_the_next_connection(site, tmp_path, at):
    """Red when what admins allow is asked once for a whole fetch."""
    site.redirects = {"/first": "/file"}
    connected = at(["10.20.0.5"], ["10.20.0.5"])
    with pytest.raises(FetchFailed) as failed:
        take_by(site, tmp_path / "a", ["10.20.0.0/16"], [], path="/first")
    assert failed.value.code == "fetch_private" and len(connected) == 1


def test_a_redirect_is_followed(site, tmp_path):
    site.redirects = {"/first": "/file"}
    take(f"http://127.0.0.1:{site.port}/first", tmp_path / "a")
    assert hashlib.sha256((tmp_path / "a").read_bytes()).digest() == hashlib.sha256(site.body).digest()


def test_a_break_goes_on_where_it_was(site, tmp_path):
    """Red when what is there already is fetched again."""
    target, site.breaks_after = tmp_path / "a", len(site.body) * 99 // 100
    assert code(site.url, target) == "fetch_broken"
    have, site.breaks_after = target.stat().st_size, None
    assert have > 2 * MIB
    take(site.url, target)
    assert target.read_bytes() == site.body and site.asked[-1][1] == f"bytes={have}-"
    take(site.url, target)
    assert target.read_bytes() == site.body


def test_a_server_that_knows_no_ranges_sends_all_again(site, tmp_path):
    (tmp_path / "a").write_bytes(b"x" * (4 * MIB))
    site.ranges = False
    take(site.url, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == site.body


@pytest.mark.parametrize("told", [True, False])
def test_what_is_too_long_is_not_taken(site, tmp_path, told):
    """Red when only the length that the server tells is looked at."""
    site.told = len(site.body) if told else None
    assert code(site.url, tmp_path / "a", most=2 * MIB) == "image_long"
    assert not told or not (tmp_path / "a").exists()


def test_time_is_limited_and_whoever_looks_may_stop_it(site, tmp_path):
    assert code(site.url, tmp_path / "a", seconds=0) == "fetch_late"

    def stop(have):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        take(site.url, tmp_path / "a", check=stop)
    assert code(f"http://127.0.0.1:{site.port}/none", tmp_path / "a") == "fetch_status"
    assert code(f"https://127.0.0.1:{site.port}/file", tmp_path / "a") == "fetch_tls"


class Trickle:
    """A server, with TLS or not, that sends a letter now and then until nobody takes them any more."""

    MOST, EVERY = 200, 0.05  # letters, seconds between two

    def __init__(self, head, certificate=None):
        self.head, self.certificate, self.sent = head, certificate, 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        with suppress(OSError):
            connection, _place = self.listener.accept()
            if self.certificate:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(self.certificate)
                connection = context.wrap_socket(connection, server_side=True)
            with connection:
                connection.recv(4096)
                connection.sendall(self.head)
                while self.sent < self.MOST:
                    connection.sendall(b"x")
                    self.sent += 1
                    time.sleep(self.EVERY)

    def end(self):
        self.thread.join()
        self.listener.close()
        return self.sent


@pytest.fixture
def certificate(tmp_path):
    """A certificate of 127.0.0.1 with its key, in a file."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        + ["-subj", "/CN=x", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key", "-out", "crt"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    both = tmp_path / "both"
    both.write_text((tmp_path / "key").read_text() + (tmp_path / "crt").read_text())
    return both


BODY = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"


@pytest.mark.slow
@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nX-Slow: ", BODY], ids=["head", "body"])
def test_who_sends_a_letter_now_and_then_over_tls_is_cut_off(tmp_path, certificate, head):
    """Red when the watchdog holds the socket that TLS has emptied: the head goes on to its last letter."""
    server = Trickle(head, certificate)
    limits = Limits(10 * MIB, 1.5, HERE, str(certificate))
    with pytest.raises(FetchFailed) as failed:
        fetch(f"https://127.0.0.1:{server.port}/", tmp_path / "a", limits=limits, check=lambda have: None)
    assert failed.value.code == "fetch_late" and server.end() < Trickle.MOST


def test_whoever_looks_may_stop_a_server_that_sends_slowly(tmp_path):
    """Red when a whole chunk is waited for before anybody looks, or when the connection, held by the error,
    is only closed."""

    def stop(have):
        raise KeyboardInterrupt

    server = Trickle(BODY)
    with pytest.raises(KeyboardInterrupt) as stopped:
        take(f"http://127.0.0.1:{server.port}/", tmp_path / "a", check=stop)
    assert server.end() < Trickle.MOST, stopped
