"""The <domain> element."""

from xml.etree import ElementTree as ET

from portal.drivers.libvirt.xml.build import child, need, parse, serialise, text_at
from portal.drivers.libvirt.xml.disk import CdElements, DiskElement, SeedElement
from portal.drivers.libvirt.xml.interface import InterfaceElement
from portal.drivers.libvirt.xml.usernet import OwnNetworkElement
from portal.drivers.libvirt.xml.windows import WindowsElements
from portal.drivers.types import Accelerator, DeviceModel, DirectBoot, DomainSpec
from portal.drivers.validation import check_domain

ROOT_PORTS = 12  # each takes one hot-plugged device
TB_CACHE_MIB = 32  # the default lets a guest's emulator grow above 1.5 GiB
TCG_ARGUMENTS = ("no_timer_check", "panic=5")  # else guests panic under load, and then spin
_UNITS = {"b": 1, "bytes": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}


class DomainElement:
    """A q35 machine, with virtio devices or with copies of real ones."""

    @classmethod
    def to_xml(cls, spec: DomainSpec) -> str:
        """Return the definition. Raises InvalidSpec."""
        check_domain(spec)
        root = ET.Element("domain", type=spec.accelerator.value)
        child(root, "name", spec.name)
        child(root, "uuid", spec.uuid)
        if spec.title:
            child(root, "title", spec.title)
        child(root, "memory", str(spec.memory_bytes // 1024), unit="KiB")
        if 0 < spec.memory_now_bytes < spec.memory_bytes:
            child(root, "currentMemory", str(spec.memory_now_bytes // 1024), unit="KiB")
        ceiling = max(spec.vcpus, spec.vcpu_ceiling)
        room = {"current": str(spec.vcpus)} if ceiling > spec.vcpus else {}
        child(root, "vcpu", str(ceiling), **room)
        cls._os(root, spec)
        cls._features(root, spec)
        # Else an installer that is done would begin again, from the kernel or CD that it was started with.
        again = "destroy" if spec.installs else "restart"
        for event, action in (("poweroff", "destroy"), ("reboot", again), ("crash", "destroy")):
            child(root, f"on_{event}", action)
        cls._devices(root, spec)
        if own := [nic for nic in spec.nics if nic.ssh_port]:
            OwnNetworkElement.add(root, own, spec.devices)
        return serialise(root)

    @staticmethod
    def _os(root: ET.Element, spec: DomainSpec) -> None:
        system = child(root, "os", **({"firmware": "efi"} if spec.uefi else {}))
        child(system, "type", "hvm", arch="x86_64", machine="q35")
        if spec.uefi:
            WindowsElements.firmware(system, secure=spec.secure_boot)
        if spec.boot is None:
            for place in ("cdrom", "hd") if spec.installs else ("hd",):
                child(system, "boot", dev=place)
            return
        words = spec.boot.cmdline.split(" ") if spec.boot.cmdline else []
        if spec.accelerator is Accelerator.EMULATION:
            words += [word for word in TCG_ARGUMENTS if word not in words]
        child(system, "kernel", spec.boot.kernel)
        child(system, "initrd", spec.boot.initrd)
        child(system, "cmdline", " ".join(words))

    @staticmethod
    def _features(root: ET.Element, spec: DomainSpec) -> None:
        features = child(root, "features")
        child(features, "acpi")
        if spec.accelerator is Accelerator.EMULATION:
            child(child(features, "tcg"), "tb-cache", str(TB_CACHE_MIB), unit="MiB")
        else:
            child(root, "cpu", mode="host-model")
        if spec.secure_boot:
            # A firmware that keeps its keys from the system keeps them in system management mode.
            child(features, "smm", state="on")
        if spec.windows:
            WindowsElements.add(root, features, spec)

    @staticmethod
    def _devices(root: ET.Element, spec: DomainSpec) -> None:
        devices = child(root, "devices")
        child(devices, "controller", type="pci", index="0", model="pcie-root")
        for _port in range(ROOT_PORTS):
            child(devices, "controller", type="pci", model="pcie-root-port")
        paravirtual = spec.devices is DeviceModel.PARAVIRTUAL
        if paravirtual:
            child(devices, "controller", type="scsi", index="0", model="virtio-scsi")
        for disk in spec.disks:
            DiskElement.add(devices, disk, spec.devices)
        # Before the seed: a firmware that is told to start from a CD takes the first one.
        CdElements.add(devices, spec.cds, spec.devices)
        if spec.seed_path is not None:
            SeedElement.add(devices, spec.seed_path, spec.devices)
        for nic in (nic for nic in spec.nics if not nic.ssh_port):
            InterfaceElement.add(devices, nic, spec.devices)
        DomainElement._people(devices, paravirtual)
        if spec.tpm:
            child(child(devices, "tpm", model="tpm-crb"), "backend", type="emulator", version="2.0")

    @staticmethod
    def _people(devices: ET.Element, paravirtual: bool) -> None:
        """Append what people and the agent reach the guest by, and what the guest gets from the host."""
        child(child(devices, "serial", type="pty"), "target", port="0")
        child(child(devices, "console", type="pty"), "target", type="serial", port="0")
        if paravirtual:
            agent = child(devices, "channel", type="unix")
            child(agent, "target", type="virtio", name="org.qemu.guest_agent.0")
        # Without a pointer that knows absolute places, a browser's mouse and the guest's drift apart.
        usb = "qemu-xhci" if paravirtual else "ich9-ehci1"
        child(devices, "controller", type="usb", index="0", model=usb)
        child(devices, "input", type="tablet", bus="usb")
        # A socket in libvirt's folder for the domain: no port, and ssh can forward it.
        child(child(devices, "graphics", type="vnc"), "listen", type="socket")
        child(child(devices, "video"), "model", type="virtio" if paravirtual else "vga")
        if not paravirtual:
            # Else libvirt adds one, which is virtio.
            child(devices, "memballoon", model="none")
            return
        child(child(devices, "memballoon", model="virtio"), "stats", period="10")
        child(child(devices, "rng", model="virtio"), "backend", "/dev/urandom", model="random")

    @classmethod
    def from_xml(cls, text: str) -> DomainSpec:
        """Read a definition back; parts the portal does not set are ignored."""
        root = parse(text)
        kernel = root.find("os/kernel")
        memory, now = cls._bytes(need(root, "memory")), cls._bytes(root.find("currentMemory"))
        boot = None
        if kernel is not None:
            cmdline = root.findtext("os/cmdline") or ""
            boot = DirectBoot(kernel.text or "", root.findtext("os/initrd") or "", cmdline)
        model, drives = DomainElement._device_model(root), root.findall("devices/disk[@device='cdrom']")
        seed = next((drive for drive in drives if SeedElement.is_at(drive, model)), None)
        ceiling, current = int(text_at(root, "vcpu")), need(root, "vcpu").get("current")
        return DomainSpec(
            name=text_at(root, "name"),
            uuid=text_at(root, "uuid"),
            title=root.findtext("title") or "",
            vcpus=int(current or ceiling),
            vcpu_ceiling=ceiling if current else 0,
            memory_bytes=memory,
            memory_now_bytes=now if now < memory else 0,
            disks=tuple(map(DiskElement.parse, root.findall("devices/disk[@device='disk']"))),
            nics=(
                *map(InterfaceElement.parse, root.findall("devices/interface[@type='network']")),
                *OwnNetworkElement.parse(root),
            ),
            seed_path=None if seed is None else SeedElement.parse(seed),
            cds=CdElements.parse(drives, model),
            installs=root.findtext("on_reboot") == "destroy",
            uefi=need(root, "os").get("firmware") == "efi",
            secure_boot=WindowsElements.is_secure(root),
            tpm=root.find("devices/tpm") is not None,
            windows=WindowsElements.are_in(root),
            accelerator=Accelerator(root.get("type", "")),
            boot=boot,
            devices=model,
        )

    @staticmethod
    def _bytes(amount: ET.Element | None) -> int:
        return 0 if amount is None else int(amount.text or "0") * _UNITS[amount.get("unit", "KiB")]

    @staticmethod
    def _device_model(root: ET.Element) -> DeviceModel:
        """Tell the device model by what is there with or without disks and cards: the screen."""
        screen = root.find("devices/video/model")
        virtio = screen is None or screen.get("type") == "virtio"
        return DeviceModel.PARAVIRTUAL if virtio else DeviceModel.EMULATED
