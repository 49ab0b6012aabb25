"""A portal of the bench's own, by the command that the README names, and people who use it over HTTP."""

import http.client
import os
import re
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.cookies import SimpleCookie
from pathlib import Path
from urllib.parse import urlencode

ROOT = Path(__file__).resolve().parents[2]
SCRIPT_LIMIT = 300  # seconds
KEPT_SECONDS = 3.0
PARTS = ("web", "worker", "scheduler", "watcher", "consoles", "redis")


@dataclass(frozen=True)
class Portal:
    """A portal that runs: where it answers, where its state lies, and the first accounts' passwords."""

    port: int
    state: Path
    pool: str
    passwords: Mapping[str, str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def pid(self, part: str) -> int:
        """Return the process id of `part` (web, worker, watcher, ...)."""
        return int((self.state / "run" / f"{part}.pid").read_text())

    def stop(self, part: str) -> None:
        """Stop one part by the project's own script."""
        _service(f"stop {part}", self._env)

    def run(self) -> None:
        """Start the parts that do not run."""
        _script("run", self._env, "--background")

    def signal(self, part: str, number: signal.Signals) -> None:
        """Send a signal to one part's process."""
        os.kill(self.pid(part), number)

    @property
    def _env(self) -> dict[str, str]:
        return _environment(self.state, self.port, self.pool)


def _environment(state: Path, port: int, pool: str) -> dict[str, str]:
    return {**os.environ, "GATEHOUSE_STATE": str(state), "PORT": str(port), "GATEHOUSE_POOL": pool}


def _service(command: str, env: Mapping[str, str]) -> None:
    """Run a function of scripts/lib/services.sh."""
    script = f'. scripts/lib/common.sh; . scripts/lib/services.sh; mkdir -p "$RUN" "$LOG"; {command}'
    subprocess.run(["bash", "-ec", script], cwd=ROOT, env=env, check=True, timeout=60)


@contextmanager
def redis() -> Iterator[None]:
    """Run a Redis alone in the state folder GATEHOUSE_STATE, as scripts/run starts it."""
    _service("start_redis", os.environ)
    try:
        yield
    finally:
        _service("stop redis", os.environ)


def _script(name: str, env: Mapping[str, str], *arguments: str) -> None:
    done = subprocess.run(
        [ROOT / "scripts" / name, *arguments],
        env=env,
        capture_output=True,
        text=True,
        timeout=SCRIPT_LIMIT,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"scripts/{name} ended with {done.returncode}:\n{done.stdout}{done.stderr}")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextmanager
def started() -> Iterator[Portal]:
    """Run a portal in the state folder GATEHOUSE_STATE until the block ends; remove what it built."""
    state = Path(os.environ["GATEHOUSE_STATE"])
    pool, port = f"/var/lib/libvirt/images/gttest-{secrets.token_hex(4)}", _free_port()
    env = _environment(state, port, pool)
    try:
        _script("run", env, "--background")
        lines = (state / "credentials").read_text().splitlines()
        yield Portal(port, state, pool, dict(line.split(":", 1) for line in lines))
    finally:
        _script("stop", env)
        remove_pool(pool)


def remove_pool(path: str) -> None:
    """Remove what a portal built in its pool on this machine, machines first."""
    from portal.drivers.registry import driver_for

    driver = driver_for("qemu:///system")
    for pool in [pool for pool in driver.list_pools() if pool.path == path]:
        for info in driver.list_domains():
            if f"'{path}/" in driver.definition(info.uuid).persistent:
                driver.destroy(info.uuid)
                driver.undefine(info.uuid)
        for volume in driver.list_volumes(pool.name):
            driver.delete_volume(pool.name, volume.name)
        driver.remove_pool(pool.name)
    driver.close()


class Person:
    """Somebody signed in, on one connection that is kept open as a browser keeps it."""

    def __init__(self, portal: Portal, name: str) -> None:
        self.name = name
        self._portal = portal
        self._cookies: dict[str, str] = {}
        self._connection = http.client.HTTPConnection("127.0.0.1", portal.port, timeout=60)
        self._used = 0.0
        self.get("/accounts/login/")
        status, _page = self.post("/accounts/login/", {"login": name, "password": portal.passwords[name]})
        if status != 302:
            raise RuntimeError(f"{name} could not sign in: {status}")

    @property
    def cookie(self) -> str:
        """The Cookie header."""
        return "; ".join(f"{name}={value}" for name, value in self._cookies.items())

    def get(self, path: str) -> str:
        """Return a page. Raises RuntimeError for anything but 200."""
        status, page = self._ask("GET", path, None, {})
        if status != 200:
            raise RuntimeError(f"GET {path}: {status}")
        return page

    def post(self, path: str, fields: Mapping[str, str]) -> tuple[int, str]:
        """Post a form; return the status and the page."""
        headers = {
            "Content-Type": "application/x-www-form-urlencoded",
            "X-CSRFToken": self._cookies.get("csrftoken", ""),
        }
        return self._ask("POST", path, urlencode(fields), headers)

    def send(self, path: str, content: bytes) -> tuple[int, str]:
        """Post bytes as they are; return the status and the answer."""
        headers = {
            "Content-Type": "application/octet-stream",
            "X-CSRFToken": self._cookies.get("csrftoken", ""),
        }
        return self._ask("POST", path, content, headers)

    def _ask(
        self, method: str, path: str, body: str | bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, str]:
        # The server closes a connection that was idle for five seconds.
        if time.monotonic() - self._used > KEPT_SECONDS:
            self._connection.close()
        self._connection.request(method, path, body, {"Cookie": self.cookie, **headers})
        answer = self._connection.getresponse()
        page = answer.read().decode()
        self._used = time.monotonic()
        for line in answer.headers.get_all("Set-Cookie", []):
            for name, morsel in SimpleCookie(line).items():
                self._cookies[name] = morsel.value
        return answer.status, page


def watched(page: str) -> list[str]:
    """Return the live pieces of a page, as its script would watch them."""
    return sorted(set(re.findall(r'data-live="([^"]+)"', page)))
