from django.apps import AppConfig


class HostsConfig(AppConfig):
    name = "portal.hosts"
    label = "hosts"

    def ready(self) -> None:
        """Register the kinds of operation that this room owns."""
        from portal.hosts import joining, live
        from portal.hosts.enrolment import ENROL
        from portal.hosts.greeting import GREET
        from portal.hosts.images.deleting import DELETE_IMAGE
        from portal.hosts.images.importing import IMPORT_IMAGE
        from portal.hosts.storage import downloading, move_kinds, pool_kinds, taking_over_kind, uploading
        from portal.hosts.storage.kinds import KINDS
        from portal.operations.registry import register

        volumes = (*KINDS, *move_kinds.KINDS, downloading.KIND, uploading.KIND)
        pools = (*pool_kinds.KINDS, *pool_kinds.RUNNING, taking_over_kind.KIND)
        for kind in (ENROL, GREET, IMPORT_IMAGE, DELETE_IMAGE, *volumes, *pools):
            register(kind)
        live.register_panels()
        joining.register_panels()
