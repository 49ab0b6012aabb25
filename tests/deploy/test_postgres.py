"""scripts/run with another database and another Redis, and nothing else changed."""

import os
import pwd
import re
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
import redis

from tests.e2e.portals import ROOT, Visitor, free_port, running, wait_until

pytestmark = pytest.mark.live
#: What the web process calls itself.
WEB = "gatehouse-web"
SOURCED = '. "$0/scripts/lib/common.sh"; . "$0/scripts/lib/postgres.sh"; '
START = SOURCED + 'start_postgres; echo "$PG_DIR $DATABASE_URL"'
APPROVE = """
import time
from portal.accounts.models import User
from portal.operations.models import Operation
from portal.operations.services import decide

asked = Operation.objects.get(kind="vm.create")
decide(actor=User.objects.get(username="approver"), operation=asked, spec_hash=asked.spec_hash, approved=True)
for _ in range(240):
    asked.refresh_from_db()
    if asked.state not in ("queued", "running"):
        break
    time.sleep(0.5)
print(asked.state)
"""
STOP = SOURCED + 'PG_DIR=$1 PG_BIN=$2; shift 2; PG_AS=("$@"); stop_postgres'


@pytest.fixture
def database() -> Iterator[str]:
    """A PostgreSQL of the test's own, which the web process's user may reach."""
    done = subprocess.run(["bash", "-euc", START, ROOT], capture_output=True, text=True, check=True)
    folder, url = done.stdout.split()
    try:
        Path(folder).chmod(0o755)
        yield url
    finally:
        binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1]
        as_postgres = ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--init-groups"]
        assert pwd.getpwnam("postgres")
        subprocess.run(["bash", "-euc", STOP, ROOT, folder, binaries, *as_postgres], check=True)
        assert not os.path.exists(folder)


@pytest.fixture
def shared_redis() -> Iterator[str]:
    """A Redis on a port of the loopback, with a password."""
    port, password = str(free_port()), secrets.token_hex(8)
    command = ["redis-server", "--port", port, "--bind", "127.0.0.1", "--requirepass", password, "--save", ""]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    url = f"redis://:{password}@127.0.0.1:{port}/0"
    try:
        wait_until(lambda: _answers(url), 10, "Redis answers")
        yield url
    finally:
        process.kill()
        process.wait()


def _answers(url: str) -> bool:
    with suppress(redis.ConnectionError), redis.Redis.from_url(url) as client:
        return bool(client.ping())
    return False


def test_a_portal_runs_on_postgresql_and_a_shared_redis(database, shared_redis, tmp_path):
    """Red when a setting of SQLite's is sent to PostgreSQL, or the state is expected to hold a database.

    And when scripts/run starts a Redis although REDIS_URL names one, or a part asks the one of the state.
    """
    with running(tmp_path, DATABASE_URL=database, REDIS_URL=shared_redis) as portal:
        assert not (tmp_path / "db" / "gatehouse.sqlite3").exists()
        assert not list((tmp_path / "run").glob("redis*"))
        assert Visitor(portal.url).get("/healthz/ready")[0] == 200
        visitor = Visitor(portal.url)
        assert visitor.sign_in("requester", portal.passwords["requester"])[0] == 200
        catalogue = visitor.get("/machines/catalogue/")[1]
        ask = re.search(r'href="(/machines/catalogue/\d+/)"', catalogue)[1]
        page = visitor.get(ask)[1]
        fields = {
            "token": re.search(r'name="token" value="([^"]+)"', page)[1],
            "name": "on-postgres",
            "lease_days": "7",
            "why": "to try it",
            "user": "root",
        }
        for name in ("project", "flavour", "network"):
            fields[name] = re.search(rf'name="{name}".*?value="(\d+)"', page, re.S)[1]
        for name in ("devices", "accelerator"):
            if found := re.search(rf'name="{name}"[^>]*value="(\w+)"[^>]*checked', page):
                fields[name] = found[1]
        status, answer = visitor.post(ask, page=ask, **fields)
        assert (status, "Awaiting approval" in answer) == (200, True), answer[-3000:]
        assert portal.shell(APPROVE) == "succeeded"


def test_the_web_process_keeps_its_connections(database, tmp_path):
    """Red when the web process gets no pool: each page would wait for PostgreSQL to start a process for it.

    And without health checks: a page would get a connection that died meanwhile.
    """
    ours = f"SELECT pid FROM pg_stat_activity WHERE application_name = '{WEB}'"
    with running(tmp_path, DATABASE_URL=database) as portal, psycopg.connect(database) as look:
        look.autocommit = True
        visitor = Visitor(portal.url)
        assert visitor.get("/accounts/login/")[0] == 200
        before = set(look.execute(ours))
        for _ in range(20):
            assert visitor.get("/healthz/ready")[0] == 200
        assert before and set(look.execute(ours)) == before
        look.execute(ours.replace("pid", "pg_terminate_backend(pid)", 1))
        assert visitor.get("/healthz/ready")[0] == 200
