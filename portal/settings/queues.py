"""Celery and Channels by environment.

REDIS_URL   Redis for live pages (default: the Unix socket that scripts/run starts it on)
BROKER_URL  the broker of work, Redis or RabbitMQ (default: the same Redis)
"""

import os

from kombu import Queue

from portal.settings.paths import STATE_DIR

REDIS_URL = os.environ.get("REDIS_URL", f"unix://{STATE_DIR}/run/redis.sock")


def _broker(redis_url: str) -> str:
    """Return `redis_url` in Celery's words, which calls a Unix socket redis+socket://."""
    return redis_url.replace("unix://", "redis+socket://", 1)


CELERY_BROKER_URL = os.environ.get("BROKER_URL", _broker(REDIS_URL))
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
# A broker that is away must not hold up a page: the sweep finds what it did not take.
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "socket_connect_timeout": 1,
    "socket_timeout": 10,
    "max_retries": 1,
    "interval_start": 0,
    "interval_step": 0,
}
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_DEFAULT_QUEUE = "default"
# Each by a key of its own: with one key, a message would be put into all of them and carried out thrice.
CELERY_TASK_QUEUES = [Queue(name, routing_key=name) for name in ("default", "provision", "backup")]
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_TIMEZONE = "UTC"
# Seconds. A message that waited longer than the next one is of no use.
CELERY_BEAT_SCHEDULE = {
    "seal the trail": {"task": "audit.seal", "schedule": 1.0, "options": {"expires": 5}},
    "seal what waited": {"task": "audit.seal_all", "schedule": 300.0, "options": {"expires": 200}},
    "forget notices": {"task": "accounts.forget_notices", "schedule": 86400.0, "options": {"expires": 3600}},
    "mail": {"task": "accounts.mail_notices", "schedule": 30.0, "options": {"expires": 30}},
    "sweep": {"task": "operations.sweep", "schedule": 3.0, "options": {"expires": 10}},
    "ask for addresses": {"task": "vms.ask_addresses", "schedule": 10.0, "options": {"expires": 10}},
    "empty the bin": {"task": "vms.empty_bin", "schedule": 600.0, "options": {"expires": 300}},
    "keep leases": {"task": "vms.keep_leases", "schedule": 60.0, "options": {"expires": 50}},
    "sweep exports": {"task": "vms.sweep_exports", "schedule": 300.0, "options": {"expires": 200}},
    "sweep downloads": {"task": "hosts.sweep_downloads", "schedule": 600.0, "options": {"expires": 300}},
    "find what was lost": {"task": "hosts.find_lost", "schedule": 5.0, "options": {"expires": 10}},
    "look into pools": {"task": "hosts.look_into_pools", "schedule": 30.0, "options": {"expires": 25}},
    "expire requests": {"task": "operations.expire", "schedule": 60.0, "options": {"expires": 50}},
    "sweep uploads": {"task": "hosts.sweep_uploads", "schedule": 3600.0, "options": {"expires": 3000}},
    "reap": {"task": "operations.reap", "schedule": 5.0, "options": {"expires": 10}},
}

CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        "CONFIG": {"hosts": [{"address": REDIS_URL}], "prefix": "gatehouse"},
    }
}

#: Of what one person begins together on many machines, how much a host carries out at a time.
BATCH_CAP = max(1, int(os.environ.get("GATEHOUSE_BATCH_CAP", "4")))
