"""Health for who starts and watches the portal. Says which part fails, never how or with what password."""

import redis
from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_safe

PATIENCE = 2.0  # seconds for Redis to answer

#: Migrations are never taken back under a running process, so one look that found all applied is enough.
_migrated = False


def _database() -> bool:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            return cursor.fetchone() == (1,)
    except DatabaseError:
        return False


def _migrations() -> bool:
    global _migrated
    if not _migrated:
        try:
            executor = MigrationExecutor(connection)
            _migrated = not executor.migration_plan(executor.loader.graph.leaf_nodes())
        except DatabaseError:
            return False
    return _migrated


def _redis() -> bool:
    url = settings.REDIS_URL
    client = redis.Redis.from_url(url, socket_timeout=PATIENCE, socket_connect_timeout=PATIENCE)
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
    finally:
        client.close()


@login_not_required
@require_safe
def live(request: HttpRequest) -> JsonResponse:
    """Answer 200 while the process serves at all."""
    return JsonResponse({"live": True})


@login_not_required
@require_safe
def ready(request: HttpRequest) -> JsonResponse:
    """Answer 200 when work can be done, else 503 with the names of what fails."""
    checks = {"database": _database, "migrations": _migrations, "redis": _redis}
    failed = [name for name, works in checks.items() if not works()]
    return JsonResponse({"ready": not failed, "failed": failed}, status=503 if failed else 200)
