"""Gatehouse: a portal for Linux virtualization."""

from portal.celery import app as celery_app

__all__ = ["celery_app"]
