from django.apps import AppConfig


class AccountsConfig(AppConfig):
    name = "portal.accounts"
    label = "accounts"

    def ready(self) -> None:
        """Register the live pieces of this room."""
        from portal.accounts import live

        live.register_panels()
