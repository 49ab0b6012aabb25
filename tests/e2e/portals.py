"""A portal of a test's own: started and stopped by the scripts that the README names, removed in the end."""

import os
import re
import secrets
import shutil
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, HTTPSHandler, Request, build_opener

from portal.drivers.registry import driver_for

ROOT = Path(__file__).resolve().parents[2]
IMAGES = Path(os.environ.get("GATEHOUSE_IMAGES", ROOT / "var/images"))
CHROMIUM = "/usr/bin/chromium"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
FLAGS += ["--disable-background-networking", "--disable-component-update"]
#: A column that this version knows nothing of and cannot fill: it could not make a project there.
NEWER = """
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("accounts", "{last}")]
    operations = [migrations.AddField("Project", "newer", models.IntegerField(default=1))]
"""
#: What a portal of a test's own must not take over from the one that runs the test.
_FOREIGN = {"DATABASE_URL", "REDIS_URL", "BROKER_URL", "SECRET_KEY", "BIND"}


def free_port() -> int:
    """Return a port of the loopback that nobody listens on just now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def script(name: str, env: dict[str, str], *arguments: str, root: Path = ROOT, refused: bool = False) -> str:
    """Run a script of the checkout `root` to its end, a good one unless `refused`; return what it said."""
    done = subprocess.run(
        [root / "scripts" / name, *arguments], env=env, capture_output=True, text=True, timeout=600
    )
    said = done.stdout + done.stderr
    assert (done.returncode != 0) == refused, said
    return said


def newer_version(folder: Path) -> Path:
    """Return a checkout of a later version: this one with one migration more, which adds a column."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, names.stdout.split("\0")):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target)
    for name in (".venv", "node_modules"):
        (folder / name).symlink_to((ROOT / name).resolve())
    migrations = folder / "portal/accounts/migrations"
    last = max(path.stem for path in migrations.glob("[0-9]*.py"))
    (migrations / "9999_newer.py").write_text(NEWER.format(last=last))
    return folder


def environment(state: Path, **changes: str) -> dict[str, str]:
    """Return what a portal of its own needs: a state, a free port, a pool, and the images built already."""
    (state / "images").symlink_to(IMAGES)
    pool = f"/var/lib/libvirt/images/gttest-{secrets.token_hex(4)}"
    kept = {key: value for key, value in os.environ.items() if key not in _FOREIGN}
    own = {"GATEHOUSE_STATE": str(state), "PORT": str(free_port()), "GATEHOUSE_POOL": pool}
    return kept | own | changes


def remove_pool(path: str, uri: str = "qemu:///system") -> None:
    """Remove what the portal built in its pool, machines first."""
    driver = driver_for(uri)
    pools = [pool for pool in driver.list_pools() if pool.path == path]
    for pool in pools:
        volumes = [volume.name for volume in driver.list_volumes(pool.name)]
        for info in driver.list_domains():
            if f"{info.name}-vda.qcow2" in volumes:
                driver.destroy(info.uuid)
                driver.undefine(info.uuid)
        for volume in volumes:
            driver.delete_volume(pool.name, volume)
        driver.remove_pool(pool.name)
    driver.close()


def remove_domains(uuids: Collection[str], uri: str = "qemu:///system") -> None:
    """Remove domains behind the portal's back; those that are gone are no error."""
    driver = driver_for(uri)
    for info in driver.list_domains():
        if info.uuid in uuids:
            driver.destroy(info.uuid)
            driver.undefine(info.uuid)
    driver.close()


def interruptible() -> None:
    """Let a child hear Ctrl-C even when whoever runs the tests does not (a job in the background)."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def processes_of(state: str | Path) -> list[str]:
    """Return the command lines of processes that name `state` on it or in their environment."""
    found, wanted = [], str(state).encode()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            line = (entry / "cmdline").read_bytes()
            if wanted in line or wanted in (entry / "environ").read_bytes():
                found.append(line.replace(b"\0", b" ").decode(errors="replace"))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it ended meanwhile
    return found


@dataclass
class Portal:
    """A portal that runs, and the passwords of its first accounts."""

    url: str
    state: Path
    env: dict[str, str]
    passwords: dict[str, str] = field(default_factory=dict)

    def pid(self, part: str) -> int:
        """Return the process id of one of its parts."""
        return int((self.state / "run" / f"{part}.pid").read_text())

    def kill(self, part: str) -> None:
        """Kill a part (-9) and return when it is gone."""
        pid = self.pid(part)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not _runs(pid), 10, f"{part} is gone")

    def mend(self) -> None:
        """Start every part that does not run; return when the portal answers. Idempotent."""
        script("run", self.env, "--background")

    def shell(self, code: str) -> str:
        """Run Python with the portal's models, and return what it printed."""
        command = [sys.executable, "manage.py", "shell", "--no-imports", "--verbosity", "0", "-c", code]
        done = subprocess.run(command, cwd=ROOT, env=self.env, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def rows(self, sql: str, *arguments: Any) -> list[tuple[Any, ...]]:
        """Read the portal's database."""
        path = self.state / "db" / "gatehouse.sqlite3"
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            return database.execute(sql, arguments).fetchall()

    def one(self, sql: str, *arguments: Any) -> Any:
        """Read one value, None where there is no row."""
        found = self.rows(sql, *arguments)
        return found[0][0] if found else None

    def log(self, part: str) -> str:
        """Return what a part wrote."""
        return (self.state / "log" / f"{part}.log").read_text(errors="replace")


def wait_until(what: Callable[[], Any], limit: float = 60.0, why: str = "") -> Any:
    """Return `what()` once it is true. Raises AssertionError after `limit` seconds."""
    end = time.monotonic() + limit
    while not (found := what()):
        assert time.monotonic() < end, f"not within {limit:g} s: {why or what}"
        time.sleep(0.1)
    return found


def _runs(pid: int) -> bool:
    try:
        # A killed process whose parent has not looked yet is as good as gone.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@contextmanager
def running(state: Path, **changes: str) -> Iterator[Portal]:
    """Run a portal by scripts/run, and stop it and remove what it built in the end."""
    env = environment(state, **changes)
    try:
        script("run", env, "--background")
        lines = (state / "credentials").read_text().splitlines()
        scheme = "https" if "TLS_CERT" in env else "http"
        passwords = dict(line.split(":", 1) for line in lines)
        portal = Portal(f"{scheme}://127.0.0.1:{env['PORT']}", state, env, passwords)
        try:
            yield portal
        except BaseException:
            # The state goes with the test.
            print(f"The end of the web process's log:\n{portal.log('web')[-6000:]}")
            raise
    finally:
        script("stop", env)
        remove_pool(env["GATEHOUSE_POOL"])


class Visitor:
    """A browser's manners without a browser: keeps cookies, sends the CSRF token and an Origin."""

    def __init__(self, url: str, *, host: str = "", certificate: Path | None = None) -> None:
        self.url = url
        self.cookies = CookieJar()
        self.headers = {"Host": host} if host else {}
        context = ssl.create_default_context(cafile=str(certificate) if certificate else None)
        context.check_hostname = not host
        self._opener = build_opener(HTTPCookieProcessor(self.cookies), HTTPSHandler(context=context))

    def get(self, path: str) -> tuple[int, str]:
        """Return status and text of a page."""
        return self._send(Request(self.url + path, headers=self.headers))

    def post(self, path: str, *, page: str, origin: str = "", **fields: str) -> tuple[int, str]:
        """Send a form with the token that `page` holds; redirects are followed."""
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', self.get(page)[1])
        assert token is not None
        data = urlencode({"csrfmiddlewaretoken": token[1], **fields}).encode()
        headers = {**self.headers, "Origin": origin or self.url, "Referer": self.url + page}
        return self._send(Request(self.url + path, data=data, headers=headers))

    def sign_in(self, who: str, password: str, **more: str) -> tuple[int, str]:
        """Sign in by the form; 200 with the first page when it worked."""
        sign_in = "/accounts/login/"
        return self.post(sign_in, page=sign_in, login=who, password=password, **more)

    def _send(self, request: Request) -> tuple[int, str]:
        try:
            with self._opener.open(request, timeout=20) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as error:
            return error.code, error.read().decode()
