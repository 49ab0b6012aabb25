"""What failed, in sentences: what happened and what to do. Selected by the driver's or the step's code.

One table, however long: a code has one sentence, which every room finds in the same place.
"""

from django.utils.translation import gettext_lazy as _

SENTENCES = {
    "host_unreachable": _("The host did not answer."),
    "name_unknown": _("This host name leads to no address. Check how it is written, and the portal's DNS."),
    "no_identity": _("The portal cannot read its own SSH key. Check the file encryption_keys of its state."),
    "ssh_absent": _("No SSH server answers at this address. Check the address, the port and the firewall."),
    "key_refused": _(
        "The host let nobody in with the portal's key. Check that the user exists there and that the "
        "portal's line stands in that user's authorized_keys."
    ),
    "host_key_changed": _(
        "The host shows another key than the one that was confirmed, so nothing was sent to it. If it was "
        "installed anew, fetch its key again and confirm it; if not, somebody may be in between."
    ),
    "host_key_unconfirmed": _("Nobody confirmed this host's key yet, so nothing connects to it."),
    "libvirt_absent": _("The host let the portal in, but libvirt does not run there. Install or start it."),
    "libvirt_refused": _(
        "The host let the portal in, but its user may not use libvirt. Add the user to the group libvirt."
    ),
    "host_enrolled": _(
        "This is the machine that is enrolled as %(raw)s already, under another address. It would count "
        "twice, so nothing was made there; remove this host. If they are two machines that were given one "
        "UUID, set host_uuid in libvirtd.conf of one, start its libvirt anew, and try again."
    ),
    "xen_builds_none": _(
        "It is a host of Xen: no test guest was booted and no image copied, since no machine is built there. "
        "Those that others made can be adopted."
    ),
    "devices_untold": _(
        "The host did not tell its PCI and USB devices, so machines can be given only those that it told of "
        "before. All else is as it should be. Prove the host again later."
    ),
    "host_removed": _("The host was removed from the portal meanwhile. Nothing was done there."),
    "call_timeout": _("The host took too long to answer. An operator should look at its load."),
    "installer_changed": _(
        "The portal's copy of the installer is gone or another one. An admin must add the installer again."
    ),
    "pool_full": _("The host's storage is full. Ask an operator to make room, then ask again."),
    "portal_full": _(
        "There is too little room left where the portal keeps its files, so nothing was kept there. Ask an "
        "admin to make room."
    ),
    "export_broken": _("The portal could not write the file. Tell an operator."),
    "pool_not_found": _("The host's storage pool is gone. An operator must enrol the host again."),
    "pool_inactive": _(
        "The host's storage pool does not run, so nothing can be done in it. An operator should start it on "
        "the host, or find out there why it stopped."
    ),
    "volume_not_found": _("The image is not on the host. An operator must enrol the host again."),
    "network_not_found": _("The network is gone from the host. An operator should look at it."),
    "domain_not_found": _("The machine is not on its host any more. Somebody removed it there."),
    "port_taken": _("Another program of the host took the port of the machine. Ask again: it gets another."),
    "bridge_taken": _(
        "The host has a bridge of this network's name already, or its addresses on another one. libvirt "
        "leaves such a bridge when it ends while it makes or removes a network. An operator should look on "
        "the host who uses it, and take it away there (ip link delete)."
    ),
    "already_exists": _("The host already has something of this name that is not the portal's."),
    "invalid_spec": _("The host refused a value of the request. Tell an operator."),
    "invalid_state": _("The machine's state changed meanwhile. Look at it and try again."),
    "definition_changed": _(
        "Somebody changed the machine's settings since you saw them. Nothing was changed; look at them again."
    ),
    "change_ignored": _(
        "The host took the change and left a value as it was, so nothing was changed: it does not know that "
        "value for this machine."
    ),
    "guest_ignores": _(
        "The guest was asked to let it go and did not, so nothing was changed. Unmount it in the guest and "
        "try again, or switch the machine off first."
    ),
    "tray_held": _(
        "The guest holds the drive shut, as it does while the CD is mounted, so nothing was changed. Unmount "
        "it in the guest and try again, or take it out by force on the page of the machine's drives."
    ),
    "device_not_found": _(
        "The machine has this device no more: somebody took it away on its host. Nothing was changed."
    ),
    "card_stays": _(
        "The hypervisor cannot bring this card to another network as it is, so nothing was changed. It says: "
        "%(raw)s"
    ),
    "card_unlimited": _(
        "libvirt cannot limit this card as it is, so nothing was changed. It says: %(raw)s"
    ),
    "no_shaping": _(
        "The host cannot limit network cards: it lacks the program tc, or what a kernel has for that (HTB, "
        "SFQ or FQ-CoDel, policing). Nothing was changed. A machine whose card has limits does not start "
        "there: take the limits away on the card's page. The host says: %(raw)s"
    ),
    "card_elsewhere": _(
        "Somebody brought the card to another network since you saw it. Nothing was changed; look again."
    ),
    "target_pool_full": _(
        "The pool %(raw)s has no room for the disk. The machine works with the disk where it was, and what "
        "was copied is deleted. Make room in that pool, or choose another one."
    ),
    "copy_ended": _(
        "The copy of the disk ended before it was whole. The machine works with the disk where it was, and "
        "what was copied is deleted. The host's log says why; then move it again."
    ),
    "copy_unsure": _(
        "The machine was told to work with the copy of its disk, and its libvirt failed before it said "
        "whether it does. It may run though it seems off. Neither file is deleted, and the portal leaves "
        "the machine alone. An operator must look on the host, by the UUID, for its QEMU, and which of "
        "both files it writes to (with no QEMU left: which was written last), and switch it off. If that "
        "is the copy, name it in the machine's definition there, else delete the copy; then this comes to "
        "its end by itself within ten minutes. UUID, old file, copy: %(raw)s"
    ),
    "saved_state": _(
        "The machine is off with its memory saved, and what was saved names its disk where it is. Start the "
        "machine, or discard what was saved; then move the disk."
    ),
    "cannot_save": _(
        "The hypervisor could not save the machine's memory, and the machine goes on as it was. "
        "It says: %(raw)s"
    ),
    "no_room_to_save": _(
        "The host has no room for the machine's memory, and the machine goes on as it was. An operator must "
        "make room on the host, where its libvirt keeps what is saved, and look whether other machines of "
        "the host are paused: one that had to write while there was no room at all waits to be resumed."
    ),
    "cannot_restore": _(
        "The machine could not go on from what was saved of it, which is kept. Try again, or discard what "
        "was saved and start it anew. The hypervisor says: %(raw)s"
    ),
    "has_snapshots": _(
        "The machine has snapshots on its host, which lie in its disk and would be lost with the old file. "
        "The disk stays where it was. Let an operator delete the snapshots on the host; then move the disk."
    ),
    "moved_already": _(
        "It was too late to take this back: the machine worked with the disk in its new pool already. The "
        "old file is deleted, unless something else uses it."
    ),
    "old_disk_left": _(
        "The disk is in its new pool, but the old file is left: something on the host uses it still, or the "
        "host did not delete it. An operator should look at it."
    ),
    "disks_left": _(
        "A disk of it was left on the host: another machine or volume uses it there, as the host says. An "
        "operator should look at it."
    ),
    "no_slot": _(
        "The machine has no place for another device while it runs. Switch it off, and it will get one."
    ),
    "plug_no_slot": _(
        "The machine has no free slot while it runs: it gets the device when it is switched off and started "
        "again."
    ),
    "plug_kept": _(
        "The guest was asked to let the device go, and has not so far. It has it until it lets go, or until "
        "the machine is switched off and started again."
    ),
    "plug_at_next_start": _(
        "The hypervisor cannot do all of this while the machine runs: it counts when the machine is switched "
        "off and started again."
    ),
    "plug_unsure": _(
        "The host broke off in the midst of this, so that the guest may have some of it by now and some not. "
        "It counts for certain when the machine is switched off and started again."
    ),
    "at_next_start": _(
        "This cannot be changed while the machine runs: it gets it when it is switched off and started again."
    ),
    "memory_at_next_start": _("It gets the memory when it is switched off and started again."),
    "ceiling_at_next_start": _(
        "Its ceiling counts from the next time on that it is switched off and started again."
    ),
    "memory_kept": _(
        "The guest was told, and has not given the memory back so far. It may need it, or have no driver of "
        "the balloon (virtio-balloon): then it keeps what it was started with. The machine's page says what "
        "it has."
    ),
    "memory_not_taken": _(
        "The guest was told, and has not taken all of the memory so far. The machine's page says what it has."
    ),
    "memory_unsure": _(
        "The host did not say whether the running machine got the memory. It is in its definition: the "
        "machine has it at the latest when it is switched off and started again."
    ),
    "vcpus_emulated": _(
        "It gets the processors when it is switched off and started again: it runs emulated, and a "
        "vCPU that comes while it runs can crash QEMU's emulation."
    ),
    "vcpus_unused": _(
        "The machine has the processors, but its guest does not use all of them. Bring them online in the "
        "guest, or switch it off and start it again."
    ),
    "vcpus_untold": _(
        "The machine has the processors. Whether its guest uses them it does not say: no agent answers in it."
    ),
    "vcpus_unsure": _(
        "The host did not say whether the running machine got the processors. They are in its definition: it "
        "has them at the latest when it is switched off and started again."
    ),
    "machine_runs": _("A machine becomes smaller only while it is off, and it runs. Nothing was changed."),
    "not_adoptable": _("%(raw)s It was not adopted, and nothing was changed on its host."),
    "not_taken_anew": _("%(raw)s What the portal wrote down of the machine stayed as it was."),
    "no_room_anew": _(
        "%(raw)s What the portal wrote down of the machine stayed as it was; make room, and look again."
    ),
    "no_room_to_adopt": _("%(raw)s It was not adopted; make room, and adopt it again."),
    "same_image": _(
        "The portal has this very image already: %(raw)s. Nothing was changed in the machine since then, so "
        "no second one was kept."
    ),
    "volume_other": _(
        "The volume has another size or format than when it was asked for. Nothing was changed; ask anew."
    ),
    "volume_in_use": _("%(raw)s uses the volume. Nothing was changed; take it away there first."),
    "name_taken": _(
        "The pool has something of this name already, which the portal did not make. It was left as it is; "
        "choose another name."
    ),
    "volume_saved": _(
        "%(raw)s is suspended to disk: a part of what its guest wrote is in the saved memory and not in the "
        "volume yet. Start it and switch it off, or discard what was saved, then try again."
    ),
    "volume_written": _(
        "%(raw)s runs and may write to the volume, so its file would be half old and half new. Switch it off "
        "first, then try again."
    ),
    "volume_changed": _(
        "The volume was changed while it was read, so what was read was thrown away. Try again."
    ),
    "pool_in_use": _("%(raw)s uses what is in the pool. Nothing was changed; take it away there first."),
    "folder_taken": _("Another pool of the host has the folder %(raw)s. Choose another one."),
    "pool_vanished": _("The host has this pool no more. Nothing was changed."),
    "pool_changed": _(
        "The pool is not any more as it was seen: somebody changed it on its host. Nothing was changed; look "
        "again."
    ),
    "volume_gone": _("The volume is not in its pool any more. Look into the pool to see what is there."),
    "volume_pool_gone": _(
        "The host has this pool no more, or it does not run. An operator should look at the host."
    ),
    "volume_snapshots": _(
        "The volume has snapshots, which a copy would not have. Nothing was changed. Delete them on the host "
        "(qemu-img snapshot), then try again."
    ),
    "volume_encrypted": _(
        "The volume is encrypted, and without its key it is not copied. Nothing was changed."
    ),
    "volume_external": _("The volume keeps its content in another file. Nothing was changed."),
    "volume_strange": _(
        "What is in the volume reads as another format than the one it has, and could name files of the "
        "host. It was not copied. An operator should look at its beginning."
    ),
    "other_pool_full": _(
        "The pool %(raw)s has no room for the volume, which stays where it was; what was copied is deleted. "
        "Make room in that pool, or choose another one."
    ),
    "copy_gone": _(
        "The copy in the other pool is not what was made there: somebody changed or deleted it. The volume "
        "stays where it was; look into both pools."
    ),
    "pool_runs_again": _(
        "The pool was stopped twice, and runs again: libvirt on its host is started over and over, and runs "
        "each pool whose folder it finds, or somebody else starts it."
    ),
    "volume_left": _(
        "The volume is in its new pool, but something of its name is left in the old one: the host uses it "
        "by now, did not delete it, or it is another volume. Look at it there."
    ),
    "volume_moved_already": _(
        "It was too late to take this back: the copy was whole, and the old volume was being deleted. The "
        "volume is in its new pool; what may be left in the old one is listed there."
    ),
    "volume_pool_full": _("The pool has no room for the volume. Make room in it, then try again."),
    "strange_format": _(
        "What is on the disk reads as another format than its machine has it in, and could name files of the "
        "host. It was not copied. An operator should look at what the guest wrote to its beginning."
    ),
    "not_supported": _("The host cannot do this."),
    "no_address": _("The guest started but never asked for an address. Everything was taken back."),
    "guest_stopped": _("The guest switched itself off before it was up. Everything was taken back."),
    "guest_crashed": _(
        "The guest crashed before it was up. Everything was taken back. Ask again; if it crashes again, an "
        "operator should look at its image and at the host's log."
    ),
    "guest_paused": _(
        "The guest was paused before it was up, as a host does when its disk is full. Everything was taken "
        "back. An operator should look at the host's storage; then ask again."
    ),
    "internal": _(
        "The portal itself failed here; the host is not to blame. If the request was made before an upgrade, "
        "ask again. An operator sees the error, and the worker's log has it in full."
    ),
    "sandbox_missing": _(
        "The portal cannot look at the file safely here: its worker needs qemu-img (package qemu-utils) and "
        "a kernel with Landlock (Linux 5.13 or later, not shut off). Try again after that."
    ),
    "upload_gone": _("The file is not here any more. Add it again."),
    "store_full": _(
        "The portal's own disk is full. What a browser sent is kept: make room on that disk, then try again."
    ),
    "store_failed": _(
        "The portal's own disk did not take or give the file (%(raw)s). What a browser sent is kept: have "
        "that disk looked at, then import it again."
    ),
    "program_cut": _(
        "The program that looks at images did not get to its end (%(raw)s). What a browser sent is kept: "
        "import it again when the worker's machine has less to do. If that ends so each time, the file may "
        "be made to hold the portal up: throw it away."
    ),
    "image_checksum": _(
        "The file's SHA-256 is %(raw)s, which is not the one that was told. It was thrown away: it was "
        "damaged on its way, or is another file."
    ),
    "image_empty": _("The file is empty. It was thrown away."),
    "image_long": _("The file is larger than the %(raw)s that the portal takes. Nothing was kept of it."),
    "image_packed": _("The file is packed (%(raw)s). Unpack it, and add what was in it."),
    "appliance_unfit": _(
        "The file is an OVA that cannot be taken, and was thrown away. What was found: %(raw)s."
    ),
    "appliance_disks": _(
        "The OVA holds a machine with %(raw)s disks, and one of them is taken. Choose by its number on the "
        "page of the upload which one; what a browser sent is kept."
    ),
    "appliance_no_disk": _(
        "The OVA has no disk with the number %(raw)s. Choose one that it has on the page of the upload; what "
        "a browser sent is kept."
    ),
    "appliance_none": _(
        "The disk with the number %(raw)s was to be taken out of an OVA, and the file is none. Import it "
        "without a number on the page of the upload; what a browser sent is kept."
    ),
    "appliance_blank": _(
        "The machine of the OVA also has a disk that begins empty, or several: there is nothing in them to "
        "take over. Give machines such disks anew where they need them."
    ),
    "appliance_data": _(
        "The disk of the OVA does not say in its first sector that it can be booted, and no machine starts "
        "from it: it was taken byte for byte, as a disk of data."
    ),
    "appliance_no_data": _(
        "The disk of the OVA is of no known format, and no raw disk of data: the OVA says that it has "
        "%(raw)s. The file was thrown away."
    ),
    "image_foreign": _(
        "The file is a disk of the format %(raw)s, which the portal does not take. Make a qcow2 of it: "
        "qemu-img convert -O qcow2."
    ),
    "image_is_iso": _("The file is a CD (ISO 9660), not a disk. Add it as a CD."),
    "image_unknown": _(
        "The file is no disk: it is no qcow2, and a raw disk would say in its first sector that it can be "
        "booted."
    ),
    "volume_unknown": _(
        "Nothing says what the file is: it is of no known format, and a raw disk would say in its first "
        "sector that it can be booted. It is kept: if it is a raw disk of data, say so on the page of the "
        "upload."
    ),
    "raw_looks_otherwise": _(
        "The file looks like a disk of another format, or an archive. As was said it was taken as a raw "
        "disk, byte for byte: that is what a guest finds on it. If that was a mistake, delete the volume, "
        "and upload the file without saying so."
    ),
    "image_backed": _(
        "The image takes a part of its content from another file, %(raw)s. It was thrown away: it would show "
        "that file of the host. Make one that stands by itself: qemu-img convert -O qcow2."
    ),
    "image_external": _(
        "The image keeps its content in another file. It was thrown away. Make one that stands by itself: "
        "qemu-img convert -O qcow2."
    ),
    "image_encrypted": _("The image is encrypted. The portal could not start a machine from it."),
    "image_huge": _("The disk in the image has %(raw)s, which no disk here may have. It was thrown away."),
    "image_damaged": _("The image is damaged and was thrown away. What was found: %(raw)s."),
    "image_corrupt": _(
        "The image is not whole, and was thrown away. What qemu-img check found: %(raw)s. A part of the file "
        "is missing, or it was copied while something wrote to it. Copy it again from where it came, or mend "
        "it by qemu-img check -r all."
    ),
    "image_unconverted": _("The disk could not be made a qcow2. What was found: %(raw)s."),
    "iso_invalid": _("The file is no CD: it has no volume of ISO 9660. It was thrown away."),
    "image_cut": _("The CD ends before its content does: a part of the file is missing. It was thrown away."),
    "image_known": _("This is %(raw)s, which is there already. Nothing was added."),
    "image_used": _("The image is in use. %(raw)s Nothing more was deleted."),
    "image_not_everywhere": _(
        "An image is not in every pool: one did not take it, or does not run. Proving that host again copies "
        "what is lacking to those of its pools that run."
    ),
    "fetch_scheme": _("Files are fetched by https or http; this address says %(raw)s."),
    "fetch_address": _("This is no address of a file: %(raw)s"),
    "fetch_unresolved": _(
        "The name %(raw)s leads to no address. Check how it is written, and the portal's DNS."
    ),
    "fetch_private": _(
        "%(raw)s is not a public address, and nothing was fetched. An admin of every project can allow its "
        "network under Catalogue, Images, Allowed networks."
    ),
    "fetch_closed": _(
        "%(raw)s is closed: it is the portal's own machine, an address by which clouds tell passwords, or "
        "one that no server has. Nothing was fetched. No admin can allow it here; whoever runs the portal "
        "can, by GATEHOUSE_IMPORT_NETWORKS."
    ),
    "fetch_redirects": _("The address leads on and on, and never to a file."),
    "fetch_status": _("The server answered with the status %(raw)s instead of the file."),
    "fetch_tls": _("The server did not prove who it is: %(raw)s. Nothing was fetched."),
    "fetch_broken": _("The connection to the server broke: %(raw)s. Try again."),
    "fetch_late": _("The file did not arrive within %(raw)s minutes."),
    "nothing_boots": _("No guest boots on this host, neither with KVM nor emulated."),
}
#: Sentences that name what the step said; the raw text of every other is for operators alone.
NAMING = frozenset(
    {
        "host_enrolled",
        "card_stays",
        "card_unlimited",
        "no_shaping",
        "cannot_save",
        "cannot_restore",
        "not_adoptable",
        "no_room_to_adopt",
        "not_taken_anew",
        "no_room_anew",
        "same_image",
        "volume_in_use",
        "pool_in_use",
        "volume_written",
        "volume_saved",
        "folder_taken",
        "target_pool_full",
        "copy_unsure",
        "other_pool_full",
        "store_failed",
        "program_cut",
        "image_checksum",
        "image_long",
        "image_packed",
        "appliance_unfit",
        "appliance_disks",
        "appliance_no_disk",
        "appliance_none",
        "appliance_no_data",
        "image_foreign",
        "image_backed",
        "image_huge",
        "image_damaged",
        "image_corrupt",
        "image_unconverted",
        "image_known",
        "image_used",
        "fetch_scheme",
        "fetch_address",
        "fetch_unresolved",
        "fetch_private",
        "fetch_closed",
        "fetch_status",
        "fetch_tls",
        "fetch_broken",
        "fetch_late",
    }
)
OTHER = _("The host reported an error that the portal does not know. An operator sees its text.")


def sentence(code: str, raw: str = "") -> str:
    """Return the sentence for an error code, '' for none; with the step's own word where it names that."""
    text = str(SENTENCES.get(code, OTHER)) if code else ""
    return text % {"raw": raw} if code in NAMING else text
