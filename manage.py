#!/usr/bin/env python3
"""Run Django's management commands with Gatehouse's settings."""

import os
import sys

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
    from django.core.management import execute_from_command_line

    import portal.celery  # noqa: F401 (services queue work through the current app)

    execute_from_command_line(sys.argv)
