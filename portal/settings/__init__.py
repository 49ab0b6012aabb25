"""Settings, read from the environment only.

GATEHOUSE_STATE  folder of all state (default: var/ beside manage.py)
DATABASE_URL     default: SQLite in the state folder, WAL and immediate transactions
"""

import os
import secrets
from pathlib import Path

import dj_database_url

BASE_DIR = Path(__file__).resolve().parent.parent.parent
STATE_DIR = Path(os.environ.get("GATEHOUSE_STATE", BASE_DIR / "var"))
STATE_DIR.mkdir(parents=True, exist_ok=True)


def _secret_key(path: Path) -> str:
    """Read the signing key, making it (mode 600) on the first start; two racing starts agree on one."""
    staged = path.with_name(f"{path.name}.{os.getpid()}")
    if not path.exists():
        descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as handle:
            handle.write(secrets.token_urlsafe(48))
        try:
            os.link(staged, path)
        except FileExistsError:
            # Another process was first; its key is the one.
            staged.unlink()
        else:
            staged.unlink()
    return path.read_text().strip()


SECRET_KEY = os.environ.get("SECRET_KEY") or _secret_key(STATE_DIR / "secret_key")
DEBUG = False
ALLOWED_HOSTS = os.environ.get("ALLOWED_HOSTS", "127.0.0.1,localhost").split(",")

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "portal.audit",
    "portal.accounts",
    "portal.operations",
]
MIDDLEWARE: list[str] = []

DATABASES = {
    "default": dj_database_url.parse(
        os.environ.get("DATABASE_URL", f"sqlite:///{STATE_DIR / 'gatehouse.sqlite3'}")
    )
}
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    DATABASES["default"]["OPTIONS"] = {
        # A transaction that reads first and writes later must not find the door shut: lock at once.
        "transaction_mode": "IMMEDIATE",
        "timeout": 30,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
    }
    # Racing threads need a real file; SQLite's in-memory test database is one shared connection.
    DATABASES["default"]["TEST"] = {"NAME": str(STATE_DIR / "test.sqlite3")}  # type: ignore[typeddict-unknown-key]

DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = [
    "django.contrib.auth.backends.ModelBackend",
    "portal.accounts.backends.RoleBackend",
]
USE_TZ = True
TIME_ZONE = "UTC"
