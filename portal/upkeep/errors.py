"""What can stand in the way of a backup or a restore, as one sentence for the person at the keyboard."""


class UpkeepError(Exception):
    """A backup or a restore cannot be done; the text says what happened, what was kept and what to do."""
