"""The portal behind Debian's nginx as deploy/ configures it, and with a certificate of its own."""

import asyncio
import json
import os
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin

from tests.e2e.portals import ROOT, Portal, Visitor, free_port, running

pytestmark = pytest.mark.live
NAME = "portal.example.org"
OFFERED = ROOT / "deploy/nginx/gatehouse.conf"


@dataclass
class Proxied:
    """A portal behind nginx."""

    portal: Portal
    port: int
    plain_port: int
    certificate: Path
    name: str = NAME

    @property
    def host(self) -> str:
        return f"{self.name}:{self.port}"

    @property
    def origin(self) -> str:
        return f"https://{self.host}"

    def visitor(self) -> Visitor:
        return Visitor(f"https://127.0.0.1:{self.port}", host=self.host, certificate=self.certificate)

    def socket(self, visitor: Visitor, *, origin: str, path: str = "/live/") -> connect:
        """Return a socket, that of live pages, opened by `async with`, as a browser at `origin` asks for it.

        By the asyncio client: the one of threads reads and writes one TLS connection at the same time, which
        OpenSSL does not allow, and now and then never sees the answer.
        """
        cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in visitor.cookies)
        context = ssl.create_default_context(cafile=str(self.certificate))
        return connect(
            f"wss://{self.host}{path}",
            sock=socket.create_connection(("127.0.0.1", self.port)),
            ssl=context,
            server_hostname=self.name,
            origin=Origin(origin),
            additional_headers={"Cookie": cookies},
        )


def _certificate(folder: Path) -> tuple[Path, Path]:
    """Make a certificate for the name, signed by itself."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        + ["-days", "1", "-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME},IP:127.0.0.1"]
        + ["-keyout", key, "-out", certificate],
        check=True,
        capture_output=True,
    )
    return certificate, key


def _site(upstream: str, port: int, plain_port: int, certificate: Path, key: Path) -> str:
    """Return the offered configuration with this test's addresses in it, and nothing else changed."""
    text = OFFERED.read_text()
    for ours, theirs in (
        ("server 127.0.0.1:8000;", f"server 127.0.0.1:{upstream};"),
        ("listen 80;", f"listen 127.0.0.1:{plain_port};"),
        ("listen 443 ssl http2;", f"listen 127.0.0.1:{port} ssl http2;"),
        ("/etc/ssl/gatehouse/fullchain.pem", str(certificate)),
        ("/etc/ssl/gatehouse/privkey.pem", str(key)),
    ):
        assert text.count(ours) == 1, ours
        text = text.replace(ours, theirs)
    return text


@pytest.fixture(scope="module")
def proxied(tmp_path_factory) -> Iterator[Proxied]:
    folder = tmp_path_factory.mktemp("nginx")
    certificate, key = _certificate(folder)
    port, plain_port = free_port(), free_port()
    told = {
        "GATEHOUSE_TLS": "1",
        "GATEHOUSE_TRUST_PROXY": "1",
        "ALLOWED_HOSTS": NAME,
        "TRUSTED_ORIGINS": f"https://{NAME}:{port}",
        "PUBLIC_URL": f"https://{NAME}:{port}",
    }
    with running(tmp_path_factory.mktemp("state"), **told) as portal:
        site = _site(portal.env["PORT"], port, plain_port, certificate, key)
        (folder / "site.conf").write_text(site)
        (folder / "nginx.conf").write_text(
            f"pid {folder}/pid; error_log {folder}/errors; events {{}} http {{ access_log off; "
            + "".join(f"{kind}_temp_path {folder}/{kind}; " for kind in ("client_body", "proxy", "fastcgi"))
            + "".join(f"{kind}_temp_path {folder}/{kind}; " for kind in ("uwsgi", "scgi"))
            + f"include {folder}/site.conf; }}"
        )
        command = ["/usr/sbin/nginx", "-c", folder / "nginx.conf", "-g", "daemon off;"]
        nginx = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            _wait_for(port)
            yield Proxied(portal, port, plain_port, certificate)
        finally:
            nginx.terminate()
            nginx.wait(10)


def _wait_for(port: int) -> None:
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            time.sleep(0.05)
    raise AssertionError("nginx does not listen")


def test_people_sign_in_through_the_proxy(proxied):
    """Red when the portal does not believe X-Forwarded-Proto: the cookies say https alone."""
    visitor = proxied.visitor()
    status, page = visitor.sign_in("admin", proxied.portal.passwords["admin"], origin=proxied.origin)
    assert (status, "Sign out" in page) == (200, True)
    assert all(cookie.secure for cookie in visitor.cookies)


def test_a_form_from_elsewhere_is_refused(proxied):
    """Red when the origin is not looked at."""
    visitor = proxied.visitor()
    status, _page = visitor.sign_in(
        "admin", proxied.portal.passwords["admin"], origin="https://elsewhere.example.com"
    )
    assert status == 403


async def look_from(through: Proxied, visitor: Visitor, origin: str, panel: str) -> str:
    """Return what the socket of live pages says of a panel first."""
    async with through.socket(visitor, origin=origin) as link:
        await link.send(json.dumps({"watch": [panel]}))
        return str(await asyncio.wait_for(link.recv(), timeout=20))


def test_live_pages_go_through_the_proxy_and_only_from_its_own_origin(proxied):
    """Red when the proxy does not pass the upgrade on, or the origin of a socket is not looked at."""
    visitor = proxied.visitor()
    visitor.sign_in("operator", proxied.portal.passwords["operator"], origin=proxied.origin)

    assert "hosts.row:1" in asyncio.run(look_from(proxied, visitor, proxied.origin, "hosts.row:1"))
    for origin in ("https://elsewhere.example.com", f"http://{proxied.host}", f"https://{NAME}"):
        with pytest.raises(InvalidStatus) as refused:
            asyncio.run(look_from(proxied, visitor, origin, "hosts.row:1"))
        assert refused.value.response.status_code == 403


#: A machine whose console echoes. The watcher finds none on a fake host, and leaves what is newer as it is.
ECHOING = """
from types import SimpleNamespace as Cast
from datetime import UTC, datetime
from portal.accounts.models import Project, User
from portal.hosts.models import Image
from tests.factories import make_host, make_machine
cast = Cast(requester=User.objects.get(username="requester"), project=Project.objects.get())
host = make_host("echoing", "fake://echoing/")
made = make_machine(cast, "echoing", host, Image.objects.first(), login_user="root",
    observed_state="running", observed_at=datetime(2100, 1, 1, tzinfo=UTC))
print(made.pk)
"""


def test_a_console_goes_through_the_proxy_byte_for_byte_and_only_from_its_own_origin(proxied):
    """Red when the proxy does not pass the upgrade on, or `portal.asgi` leaves consoles out."""
    page = f"/machines/{proxied.portal.shell(ECHOING)}/"
    visitor = proxied.visitor()
    visitor.sign_in("requester", proxied.portal.passwords["requester"], origin=proxied.origin)
    ask = {"page": page, "origin": proxied.origin, "kind": "serial"}
    status, told = visitor.post(f"{page}console/ticket/", **ask)
    assert status == 200, told
    # Without Ctrl-D, which powers the fake guest off; more than a proxy keeps in its buffers.
    typed = bytes(range(0x80, 0x100)) * 2048

    async def type_from(origin: str) -> bytes:
        async with asyncio.timeout(20), proxied.socket(
            visitor, origin=origin, path=f"{page}console/serial/"
        ) as link:
            await link.send(json.loads(told)["ticket"])
            assert json.loads(await link.recv()) == {"type": "open"}
            await link.send(typed)
            heard = b""
            while len(heard) < len(typed):
                heard += await link.recv()
            return heard

    with pytest.raises(InvalidStatus) as refused:
        asyncio.run(type_from("https://elsewhere.example.com"))
    assert refused.value.response.status_code == 403
    assert asyncio.run(type_from(proxied.origin)) == typed


def test_plain_http_is_sent_to_https(proxied):
    with socket.create_connection(("127.0.0.1", proxied.plain_port)) as link:
        link.sendall(f"GET /hosts/?q=a HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n".encode())
        answer = link.recv(4096).decode()
    assert answer.startswith("HTTP/1.1 301") and f"Location: https://{NAME}/hosts/?q=a" in answer


def test_what_a_visitor_says_of_its_address_is_not_believed(proxied):
    """Red when the proxy appends to X-Forwarded-For: whoever guesses passwords would never be slowed down."""
    visitor = proxied.visitor()
    for number in range(14):
        visitor.headers["X-Forwarded-For"] = f"10.9.8.{number}"
        _status, page = visitor.sign_in(f"nobody-{number}", "wrong", origin=proxied.origin)
    assert "Too many failed" in page


def test_the_portal_serves_its_own_certificate(tmp_path_factory):
    """Red when the copy of the key cannot be read by the web process, or can be by others."""
    certificate, key = _certificate(tmp_path_factory.mktemp("tls"))
    state = tmp_path_factory.mktemp("state")
    with running(state, TLS_CERT=str(certificate), TLS_KEY=str(key)) as portal:
        visitor = Visitor(portal.url, certificate=certificate)
        status, page = visitor.sign_in("admin", portal.passwords["admin"])
        assert (status, "Sign out" in page) == (200, True)
        assert all(cookie.secure for cookie in visitor.cookies)
        assert (state / "tls/key.pem").stat().st_mode & 0o007 == 0
        # Live pages too, by the same certificate.
        direct = Proxied(portal, int(portal.env["PORT"]), 0, certificate, name="127.0.0.1")
        watched = asyncio.run(look_from(direct, visitor, direct.origin, "hosts.row:1"))
        assert "hosts.row:1" in watched


SOURCED = """
set -euo pipefail
for part in common services web address; do . "$0/scripts/lib/$part.sh"; done
warn_of_plain_text
echo "$ADDRESS ${ALLOWED_HOSTS:-}"
"""


@pytest.mark.parametrize(
    ("env", "warned", "address"),
    [
        ({}, False, "http://127.0.0.1:8000"),
        ({"BIND": "0.0.0.0", "PORT": "8080"}, True, "http://127.0.0.1:8080"),
        ({"BIND": "0.0.0.0", "GATEHOUSE_TLS": "1"}, False, "http://127.0.0.1:8000"),
        ({"BIND": "::"}, True, "http://[::1]:8000"),
        ({"BIND": "192.0.2.7"}, True, "http://192.0.2.7:8000"),
    ],
)
def test_passwords_in_the_clear_are_warned_of(tmp_path, env, warned, address):
    """Red when the sentence depends on anything but the address and the encryption."""
    own = {"PATH": os.environ["PATH"], "GATEHOUSE_STATE": str(tmp_path), **env}
    done = subprocess.run(["bash", "-c", SOURCED, ROOT], env=own, capture_output=True, text=True, check=True)
    assert ("Warning: " in done.stdout) is warned
    assert address in done.stdout
    if env.get("BIND"):
        assert "localhost" in done.stdout  # names that lead here are allowed by themselves
