from django.apps import AppConfig


class VmsConfig(AppConfig):
    name = "vms"
    label = "vms"

    def ready(self) -> None:
        """Register the kinds of operation that this room owns."""
        from portal.accounts import notices
        from portal.hosts import removal
        from portal.hosts.images import in_use, purposes
        from portal.hosts.storage import using
        from portal.operations import observers, remedies
        from portal.operations.registry import register, register_lock
        from vms import leases, live, panels, storage
        from vms.adoption.kind import ADOPT, LOOK_AGAIN
        from vms.building import CREATE
        from vms.catalogue.images import ALLOWED_NETWORKS, page_of_upload, used_by
        from vms.changes import attaching, disks, moving
        from vms.changes.cloning import CLONE
        from vms.changes.devices import bandwidth, buses, cardmodels, drives, limits, media, nics, rewiring
        from vms.changes.resizing import RESIZE
        from vms.changes.templates import TEMPLATE
        from vms.deploying import DEPLOY_SEVERAL
        from vms.editing import EDIT
        from vms.exports.kind import EXPORT
        from vms.extending import EXTEND
        from vms.installing import KIND as INSTALL
        from vms.locking import lock_machine, lock_machines_on
        from vms.observer import MachineObserver
        from vms.placement import machines_on
        from vms.power import KINDS, give_up_machines
        from vms.starting import AUTOSTART

        rooms = (nics, rewiring, cardmodels, bandwidth, drives, media, limits, buses)
        devices = (kind for room in rooms for kind in room.KINDS)
        changes = (*disks.KINDS, *attaching.KINDS, *moving.KINDS, *devices)
        built = (CREATE, DEPLOY_SEVERAL, INSTALL, ADOPT, LOOK_AGAIN)
        whole = (EDIT, AUTOSTART, EXTEND, RESIZE, CLONE, TEMPLATE, EXPORT)
        for kind in (*built, *whole, *changes, *KINDS):
            register(kind)
        register_lock(lock_machine)
        notices.register(leases.NOTICE)
        live.register_panels()
        panels.register_panels()
        observers.register(MachineObserver())
        using.register(storage.users)
        removal.register(machines_on, give_up_machines, lock_machines_on)
        in_use.register(used_by)
        purposes.register_page(page_of_upload)
        remedies.register("fetch_private", ALLOWED_NETWORKS)
