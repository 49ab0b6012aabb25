"""What a test does with a watch: hear it out, and sort what it told."""

import time
from collections import defaultdict

from portal.drivers.observations import Changes

PATIENCE = 60  # seconds until a test gives up; nothing here is a measurement


def collect(watch, until, heard=None):
    """Collect messages by URI until the condition on them holds."""
    heard = defaultdict(list) if heard is None else heard
    end = time.monotonic() + PATIENCE
    while not until(heard):
        assert time.monotonic() < end, {uri: [type(m).__name__ for m in ms] for uri, ms in heard.items()}
        for uri, message in watch.events(0.5):
            heard[uri].append(message)
    return heard


def of(messages, kind):
    return [message for message in messages if isinstance(message, kind)]


def changes(messages):
    return [change for message in of(messages, Changes) for change in message.changes]
