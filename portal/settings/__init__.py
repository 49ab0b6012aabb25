"""Settings, read from the environment only.

DATABASE_URL     default: SQLite in the state folder, WAL and immediate transactions
ALLOWED_HOSTS    names by which browsers may reach the portal, comma separated
SECRET_KEY       default: a file of the state folder that the first start makes
ENCRYPTION_KEYS  the file with the keys of what is encrypted in the database; default: in the state folder
"""

import os
import secrets
import sys
from pathlib import Path

import dj_database_url

from portal.settings.images import *  # noqa: F403
from portal.settings.paths import STATE_DIR, made_once
from portal.settings.queues import *  # noqa: F403
from portal.settings.web import *  # noqa: F403
from portal.settings.web import WEB_APPS, WEB_AUTHENTICATION_BACKENDS, listed

# The signing key; whoever has it can pass for anybody.
SECRET_KEY = os.environ.get("SECRET_KEY") or made_once(
    STATE_DIR / "secret_key", lambda: secrets.token_urlsafe(48)
)
#: Keys of what is encrypted in the database (`portal.core.encryption`). The web process needs none of them.
ENCRYPTION_KEYS = Path(os.environ.get("ENCRYPTION_KEYS", STATE_DIR / "encryption_keys"))
DEBUG = False
ALLOWED_HOSTS = listed("ALLOWED_HOSTS", "127.0.0.1,localhost")

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    *WEB_APPS,
    "portal.audit",
    "portal.upkeep",
    "portal.accounts",
    "portal.operations",
    "portal.hosts",
    "networks",
    "vms",
]

DATABASES = {
    "default": dj_database_url.parse(
        os.environ.get("DATABASE_URL", f"sqlite:///{STATE_DIR / 'db' / 'gatehouse.sqlite3'}")
    )
}
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    # A folder of its own: who writes SQLite makes files beside it, also the web process without root.
    (STATE_DIR / "db").mkdir(exist_ok=True)
    DATABASES["default"]["OPTIONS"] = {
        # A transaction that reads first and writes later must not find the door shut: lock at once.
        "transaction_mode": "IMMEDIATE",
        "timeout": 30,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
    }
    # Opening it reads the whole schema; a thread that serves again finds it open.
    DATABASES["default"]["CONN_MAX_AGE"] = None
    # Racing threads need a real file; SQLite's in-memory test database is one shared connection.
    DATABASES["default"]["TEST"] = {"NAME": str(STATE_DIR / "test.sqlite3")}  # type: ignore[typeddict-unknown-key]
elif DATABASES["default"]["ENGINE"] == "django.db.backends.postgresql" and "portal.asgi" in sys.modules:
    # The web process, which starts with portal.asgi, has more threads than connections. The workers keep
    # theirs, whatever is set for all parts: one that waits for a host must not hold up the others.
    # A page waits `timeout` seconds for one that is free, and as long when the database is away.
    _pool = {"min_size": 1, "max_size": int(os.environ.get("DATABASE_POOL", "20")), "timeout": 5}
    DATABASES["default"].setdefault("OPTIONS", {})["pool"] = _pool
    # One that died while it lay in the pool (PostgreSQL was started again) is noticed before a page gets it.
    DATABASES["default"]["CONN_HEALTH_CHECKS"] = True

DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = [
    *WEB_AUTHENTICATION_BACKENDS,
    "portal.accounts.backends.RoleBackend",
    "portal.operations.policies.deciders.DecidersBackend",
]
#: cloud-init's own JSON schema, which the image build takes out of the Debian package.
CLOUD_CONFIG_SCHEMA = STATE_DIR / "images" / "cloud-config-schema.json"
USE_TZ = True
TIME_ZONE = "UTC"
