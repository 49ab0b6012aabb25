"""What goes wrong in a page, in a process that serves pages as the portal's own does."""

import os
import subprocess
import sys

import pytest
from django.conf import settings

#: Serves one address whose view is broken, and prints the status that the browser gets.
BROKEN = """
import asyncio
from portal.asgi import application
from portal.core.web import health

def broken(answer):
    raise ZeroDivisionError("a fault of the portal's own")

health.JsonResponse = broken
scope = {"type": "http", "http_version": "1.1", "method": "GET", "path": "/healthz/live",
         "query_string": b"", "headers": [(b"host", b"localhost")]}

async def receive():
    if not asked:
        asked.append(True)
        return {"type": "http.request", "body": b"", "more_body": False}
    await asyncio.sleep(60)

async def send(message):
    if "status" in message:
        print(message["status"])

asked = []
asyncio.run(application(scope, receive, send))
"""


@pytest.mark.slow
def test_an_error_in_a_page_is_written_to_stderr_with_where_it_happened(tmp_path):
    """Red without LOGGING: Django, when DEBUG is off, writes it nowhere but in mails to ADMINS."""
    told = subprocess.run(
        [sys.executable, "-c", BROKEN],
        cwd=settings.BASE_DIR,
        env=os.environ | {"GATEHOUSE_STATE": str(tmp_path), "DJANGO_SETTINGS_MODULE": "portal.settings"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.split() == ["500"]
    assert "Internal Server Error: /healthz/live" in told.stderr
    assert "Traceback" in told.stderr and "in broken" in told.stderr
    assert "ZeroDivisionError: a fault of the portal's own" in told.stderr
