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


class BlankVolume(HostStep):
    name, title = "volume", "Make an empty disk"

    def do(self, context: StepContext) -> None:
        names = context.identifiers
        volume = VolumeSpec(names["pool"], names["volume"], context.spec["sizes"]["disk"])
        self.call(context, "create_volume", volume)

    def undo(self, context: StepContext) -> None:
        self.call(context, "delete_volume", context.identifiers["pool"], context.identifiers["volume"])


class WriteAnswers(HostStep):
    """What the installer is started with beside its own: its initrd, or a CD with answers."""

    name, title = "answers", "Bring what the installer reads"
    timeout = 300.0

    def do(self, context: StepContext) -> None:
        if from_network(context):
            self.call(context, "write_boot_file", initrd_spec(context))
        elif answers(context):
            self.call(context, "write_seed", answers_cd(context))

    def undo(self, context: StepContext) -> None:
        names = context.identifiers
        for volume in (names["initrd"], names["seed"]):
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
        # QEMU read it into the guest's memory.
        if from_network(context):
            self.call(context, "delete_volume", names["pool"], names["initrd"])


def _from_disk(context: StepContext) -> dict[str, Any]:
    """Return what starts a machine from its disk; from its CD where no system came onto the disk."""
    places = ["hd"] if from_network(context) else ["hd", "cdrom"]
    system = {"boot": [{"dev": place} for place in places], "kernel": None, "initrd": None, "cmdline": None}
    return {"os": system, "on_reboot": "restart"}


def from_network(context: StepContext) -> bool:
    """Say whether the installer is a kernel with its initrd, and no CD."""
    return bool(context.spec["pinned"]["install"]["kind"] == Image.Kind.NETBOOT)


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
    files = {}
    if told := answers(context):
        keys = "".join(f"{key}\n" for key in unattended.bare(pinned["cloud"]["ssh_keys"]))
        files = {"preseed.cfg": told["text"].encode(), "authorized_keys": keys.encode()}
    appended = cpio.archive(files, after=initrd.stat().st_size) if files else b""
    return BootFileSpec(names["pool"], names["initrd"], str(initrd), appended)


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
    spec = replace(specs.domain_spec(context), installs=True)
    if from_network(context):
        arguments = ANSWERED if told else ARGUMENTS
        boot = DirectBoot(names["image_path"], names["initrd_path"], arguments)
        return replace(spec, boot=boot, seed_path=None)
    drivers = names.get("drivers_path")
    cds = (names["image_path"], drivers) if drivers else (names["image_path"],)
    return replace(spec, cds=cds, seed_path=names["seed_path"] if told else None)


def told_of(machine: VirtualMachine) -> str:
    """Return what the page of a machine says of its installer, '' for one that was built otherwise."""
    if machine.image is None or machine.built_by.kind != INSTALL:
        return ""
    said = _(
        "It was made empty and started with %(installer)s. When the installer is done and the machine is "
        "off, start it: then it starts from its disk."
    )
    if machine.image.kind == Image.Kind.ISO:
        if _format_of(machine) == Format.AUTOINSTALL:
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
