from django.apps import AppConfig


class NetworksConfig(AppConfig):
    name = "networks"
    label = "networks"

    def ready(self) -> None:
        from networks.removal import REMOVE
        from portal.operations.registry import register

        register(REMOVE)
