"""What a service says when it will not do something."""


class Denied(Exception):
    """An action is not allowed; `reason` is a plain sentence, the same that explains a disabled button."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
