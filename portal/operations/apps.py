from django.apps import AppConfig


class OperationsConfig(AppConfig):
    name = "portal.operations"
    label = "operations"

    def ready(self) -> None:
        """Register the live pieces of this room, and what it tells people of."""
        from portal.accounts import context, notices
        from portal.operations import live, notifying, quota_panels
        from portal.operations.policies import deciders

        context.add_source(deciders.part_in_decisions)
        live.register_panels()
        quota_panels.register_panels()
        for kind in notifying.KINDS:
            notices.register(kind)
