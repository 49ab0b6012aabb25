"""Bells of a process that ends at once, such as a command, are rung all the same."""

import asyncio

from portal.live import publish


class SlowLayer:
    """Takes a moment for each bell, as a broker does."""

    def __init__(self):
        self.rung = []

    async def group_send(self, group, message):
        await asyncio.sleep(0.02)
        self.rung.append(group)


def test_what_was_rung_is_sent_before_the_process_ends(monkeypatch):
    """Red when _close() cancels the task at once, or _send_all() ends with bells pending."""
    layer = SlowLayer()
    monkeypatch.setattr(publish, "get_channel_layer", lambda: layer)
    ringer = publish._Ringer()
    ringer.ring(("vms.machine:1", "vms.machine:2"))
    ringer.ring(("vms.machine:3",))
    ringer._close()
    assert layer.rung == ["vms.machine.1", "vms.machine.2", "vms.machine.3"]
    assert not ringer._thread.is_alive()


def test_a_broker_that_hangs_holds_up_the_end_for_seconds_only(monkeypatch):
    """Red when _close() waits without a limit."""

    class Hanging(SlowLayer):
        async def group_send(self, group, message):
            await asyncio.sleep(3600)

    monkeypatch.setattr(publish, "get_channel_layer", lambda: Hanging())
    monkeypatch.setattr(publish, "PATIENCE", 0.05)
    ringer = publish._Ringer()
    ringer.ring(("vms.machine:1",))
    ringer._close()
    assert not ringer._thread.is_alive()
