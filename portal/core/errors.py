"""What a service says when it will not do something."""


class Denied(Exception):
    """An action is not allowed; `reason` is a plain sentence, the same that explains a disabled button.

    `field` names the value that stands in the way, as the service calls it, so that a form can say it there.
    """

    def __init__(self, reason: str, *, field: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.field = field
