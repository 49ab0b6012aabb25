"""Work goes into the one queue that it is meant for, on every broker."""

import pytest
from kombu import Connection, Producer

from portal.celery import app


@pytest.mark.parametrize("wanted", ["default", "provision", "backup"])
def test_a_message_lies_in_one_queue(wanted):
    """Red when two queues share a routing key: each task would be carried out once for each."""
    with Connection("memory://") as connection:
        channel = connection.channel()
        queues = {name: queue(channel) for name, queue in app.amqp.queues.items()}
        for queue in queues.values():
            queue.declare()
            queue.purge()
        route = app.amqp.queues[wanted]
        Producer(channel).publish({}, exchange=route.exchange, routing_key=route.routing_key)
        counts = {name: queue.queue_declare(passive=True).message_count for name, queue in queues.items()}
    assert counts == {name: int(name == wanted) for name in counts}
