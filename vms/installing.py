"""The steps from an approved request to a machine whose installer runs. Not for: what the installer does.

The machine's definition is for an installer only until it was started; then it is that of a machine that
starts from its disk, while the installer runs on. So whoever switches it on again never installs twice.
"""

from dataclasses import replace
from typing import Any

from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from portal.core import cpio
from portal.drivers.types import BootFileSpec, DirectBoot, DomainDefinition, DomainSpec, SeedSpec, VolumeSpec
from portal.hosts import installers
from portal.hosts.images import boot_files
from portal.hosts.models import Image
from portal.hosts.steps import HostStep
from portal.operations.registry import Kind, StepContext, StepFailed
from vms import noted, placement, specs, unattended
from vms.asking import AskingForMachines
from vms.building import DefineDomain, MakeNetwork, StartDomain, on_offer, owned_by, page_of_machine, settle
from vms.models import VirtualMachine
from vms.services import INSTALL
from vms.unattended import Format

#: The installer speaks on the serial console as well as on the screen.
ARGUMENTS = "console=tty0 console=ttyS0,115200"
#: What Debian's installer is told to ask nothing that the preseed answers, nor what has a default.
ANSWERED = f"auto=true priority=critical {ARGUMENTS}"
#: By the form of its answers, what an installer is told that is started without a boot loader.
ANSWERING = {Format.PRESEED: ANSWERED, Format.AUTOINSTALL: f"autoinstall {ARGUMENTS}"}


class BlankVolume(HostStep):
    name, title = "volume", "Make an empty disk"

    def do(self, context: StepContext) -> None:
        names = context.identifiers
        volume = VolumeSpec(names["pool"], names["volume"], context.spec["sizes"]["disk"])
        self.call(context, "create_volume", volume)

    def undo(self, context: StepContext) -> None:
        self.call(context, "delete_volume", context.identifiers["pool"], context.identifiers["volume"])


class WriteAnswers(HostStep):
    """What the installer is started with beside its own: its kernel and initrd, and a CD with answers."""

    name, title = "answers", "Bring what the installer reads"
    timeout = 300.0

    def do(self, context: StepContext) -> None:
        if from_network(context):
            self.call(context, "write_boot_file", initrd_spec(context))
        elif files_on_cd(context):
            for spec in specs_from_cd(context):
                self.call(context, "write_boot_file", spec)
        if has_answers_cd(context):
            self.call(context, "write_seed", answers_cd(context))

    def undo(self, context: StepContext) -> None:
        names = context.identifiers
        for volume in (*own_boot_files(context), names["seed"]):
            self.call(context, "delete_volume", names["pool"], volume)


class DefineInstaller(DefineDomain):
    title = "Define the machine for its installer"

    def do(self, context: StepContext) -> None:
        self.call(context, "define", domain_spec(context))


class StartFromDisk(HostStep):
    """The next start is from the disk; what runs is the installer still."""

    name, title = "disk_boot", "Let the next start be from the disk"

    def do(self, context: StepContext) -> None:
        names = context.identifiers
        seen: DomainDefinition = self.call(context, "definition", names["uuid"])
        began = timezone.now()
        made = self.call(context, "redefine", names["uuid"], _from_disk(context), seen.digest)
        # That it runs unlike it is defined keeps it from being suspended from now on.
        noted.note(names["host"], names["uuid"], made, began)
        # QEMU read them into the guest's memory.
        for volume in own_boot_files(context):
            self.call(context, "delete_volume", names["pool"], volume)


def _from_disk(context: StepContext) -> dict[str, Any]:
    """Return what starts a machine from its disk; from its CD where no system came onto the disk."""
    places = ["hd"] if from_network(context) else ["hd", "cdrom"]
    system = {"boot": [{"dev": place} for place in places], "kernel": None, "initrd": None, "cmdline": None}
    return {"os": system, "on_reboot": "restart"}


def from_network(context: StepContext) -> bool:
    """Say whether the installer is a kernel with its initrd, and no CD."""
    return bool(context.spec["pinned"]["install"]["kind"] == Image.Kind.NETBOOT)


def files_on_cd(context: StepContext) -> dict[str, str] | None:
    """Return the frozen `kernel` and `initrd` on the CD, None where the CD's own loader starts them."""
    found: dict[str, str] | None = context.spec["pinned"]["install"].get("boot")
    return found


def own_boot_files(context: StepContext) -> list[str]:
    """Return the volumes that are the machine's own until its installer runs."""
    names = context.identifiers
    if files_on_cd(context):
        return [names["kernel"], names["initrd"]]
    return [names["initrd"]] if from_network(context) else []


def has_answers_cd(context: StepContext) -> bool:
    """Say whether the answers lie on a CD of their own; a preseed stands behind the initrd."""
    told = answers(context)
    return told is not None and told["format"] != Format.PRESEED


def answers(context: StepContext) -> dict[str, Any] | None:
    """Return the frozen answers for the installer, None where a person answers."""
    found: dict[str, Any] | None = context.spec["pinned"]["install"]["answers"]
    return found


def initrd_spec(context: StepContext) -> BootFileSpec:
    """Return the machine's own initrd: the installer's, and the answers behind it.

    Raises StepFailed when the portal's copy of the installer is gone or another one.
    """
    names, pinned = context.identifiers, context.spec["pinned"]
    image = Image.objects.filter(sha256=pinned["image"]["sha256"]).first()
    source = image.source if image else ""
    _kernel, initrd = installers.files(source)
    try:
        found = installers.digest(source)
    except OSError as error:
        raise StepFailed("installer_changed", str(error)) from error
    if found != pinned["image"]["sha256"]:
        raise StepFailed("installer_changed", f"{source} has the digest {found}")
    appended = _appended(context, initrd.stat().st_size)
    return BootFileSpec(names["pool"], names["initrd"], str(initrd), appended)


def specs_from_cd(context: StepContext) -> list[BootFileSpec]:
    """Return the machine's own kernel and initrd as they lie on the CD, and a preseed behind the initrd.

    Raises StepFailed when the portal's copy of the CD is gone, or has them no more.
    """
    names, pinned, wanted = context.identifiers, context.spec["pinned"], files_on_cd(context) or {}
    image = Image.objects.filter(sha256=pinned["image"]["sha256"]).first()
    source = image.source if image else ""
    try:
        places = boot_files.places(source, wanted["kernel"], wanted["initrd"])
    except OSError as error:
        raise StepFailed("installer_changed", str(error)) from error
    if places is None:
        raise StepFailed("installer_changed", f"{source} has no {wanted['kernel']} and {wanted['initrd']}")
    kernel, initrd = places
    appended = _appended(context, initrd.length)
    return [
        BootFileSpec(names["pool"], names["kernel"], source, at=kernel.at, length=kernel.length),
        BootFileSpec(names["pool"], names["initrd"], source, appended, initrd.at, initrd.length),
    ]


def _appended(context: StepContext, after: int) -> bytes:
    """Return what stands behind the `after` bytes of an initrd: a preseed and the keys, or nothing."""
    told = answers(context)
    if told is None or told["format"] != Format.PRESEED:
        return b""
    keys = "".join(f"{key}\n" for key in unattended.bare(context.spec["pinned"]["cloud"]["ssh_keys"]))
    files = {"preseed.cfg": told["text"].encode(), "authorized_keys": keys.encode()}
    return cpio.archive(files, after=after)


def answers_cd(context: StepContext) -> SeedSpec:
    """Return the CD that an installer from a CD looks for by its label."""
    names, told = context.identifiers, answers(context) or {}
    text = told["text"]
    if told["format"] == Format.KICKSTART:
        return SeedSpec(names["pool"], names["seed"], meta_data="", user_data="", kickstart=text)
    return SeedSpec(names["pool"], names["seed"], meta_data="", user_data=text)


def domain_spec(context: StepContext) -> DomainSpec:
    """Return the machine as it is at its first start."""
    names, told = context.identifiers, answers(context)
    seed = names["seed_path"] if has_answers_cd(context) else None
    spec = replace(specs.domain_spec(context), installs=True, seed_path=seed)
    words = ANSWERING.get(Format(told["format"]), ARGUMENTS) if told else ARGUMENTS
    if from_network(context):
        return replace(spec, boot=DirectBoot(names["image_path"], names["initrd_path"], words))
    if files_on_cd(context):
        spec = replace(spec, boot=DirectBoot(names["kernel_path"], names["initrd_path"], words))
    drivers = names.get("drivers_path")
    return replace(spec, cds=(names["image_path"], drivers) if drivers else (names["image_path"],))


def told_of(machine: VirtualMachine) -> str:
    """Return what the page of a machine says of its installer, '' for one that was built otherwise."""
    if machine.image is None or machine.built_by.kind != INSTALL:
        return ""
    said = _(
        "It was made empty and started with %(installer)s. When the installer is done and the machine is "
        "off, start it: then it starts from its disk."
    )
    if machine.image.kind == Image.Kind.ISO:
        install = machine.built_by.frozen["pinned"]["install"]
        if _format_of(machine) == Format.AUTOINSTALL and not install.get("boot"):
            said += " " + str(unattended.ASKS)
        said += " " + _("The CD stays in the drive until you eject it, which does no harm.")
    return said % {"installer": machine.image.title}


def _format_of(machine: VirtualMachine) -> str:
    """Return the format of what its installer was told, '' where nobody answered before."""
    told = machine.built_by.frozen["pinned"]["install"]["answers"]
    return str(told["format"]) if told else ""


KIND = Kind(
    name=INSTALL,
    title="Install a machine",
    steps=(
        MakeNetwork(),
        BlankVolume(),
        WriteAnswers(),
        DefineInstaller(),
        StartDomain(),
        StartFromDisk(),
    ),
    place=placement.place,
    announce=gettext_lazy("%(name)s is made, and its installer runs. Open its screen or serial console."),
    page=page_of_machine,
    settle=settle,
    asking=AskingForMachines(),
    cancellable=True,
    items=on_offer,
    owned=owned_by,
)
