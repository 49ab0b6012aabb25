from django.apps import AppConfig


class HostsConfig(AppConfig):
    name = "portal.hosts"
    label = "hosts"

    def ready(self) -> None:
        """Register the kinds of operation that this room owns."""
        from portal.hosts import joining, live
        from portal.hosts.enrolment import ENROL
        from portal.hosts.greeting import GREET
        from portal.operations.registry import register

        register(ENROL)
        register(GREET)
        live.register_panels()
        joining.register_panels()
