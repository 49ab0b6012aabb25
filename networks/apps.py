from django.apps import AppConfig


class NetworksConfig(AppConfig):
    name = "networks"
    label = "networks"

    def ready(self) -> None:
        """Register what this room has in those below."""
        from networks.ports import on_host
        from networks.removal import REMOVE
        from portal.hosts import removal
        from portal.operations.registry import register

        register(REMOVE)
        removal.register(on_host)
