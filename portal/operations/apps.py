from django.apps import AppConfig


class OperationsConfig(AppConfig):
    name = "portal.operations"
    label = "operations"

    def ready(self) -> None:
        """Register the live pieces of this room."""
        from portal.operations import live

        live.register_panels()
