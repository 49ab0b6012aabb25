from django.apps import AppConfig


class OperationsConfig(AppConfig):
    name = "portal.operations"
    label = "operations"

    def ready(self) -> None:
        """Register the live pieces of this room, and what it tells people of."""
        from portal.accounts import notices
        from portal.operations import live, notifying, quota_panels

        live.register_panels()
        quota_panels.register_panels()
        for kind in notifying.KINDS:
            notices.register(kind)
