"""What the portal understands of a <domain> that somebody made (libvirt's formatdomain.html)."""

from portal.drivers.libvirt.xml.foreign.conversions import on_off, whole, yes_no
from portal.drivers.libvirt.xml.foreign.fields import (
    Attr,
    Field,
    Fields,
    Many,
    Names,
    One,
    Present,
    Size,
    Text,
)
from portal.drivers.types import LIMITS

#: The namespace of what the portal notes in a definition for itself.
TRACES = "urn:gatehouse:traces"

_TYPE_MODEL: Fields = {"type": Attr("", "type"), "model": Attr("", "model")}
#: By its `type`: of a drive controller to unit, of a PCI device domain to function, and so on.
_ADDRESS: Field = One(
    "address",
    {
        name: Attr("", name)
        for name in (
            *("type", "controller", "bus", "target", "unit", "port"),
            *("domain", "slot", "function", "multifunction", "cssid", "ssid", "devno"),
        )
    },
)
_BOOT_ORDER: Field = Attr("boot", "order", whole)

#: Where a disk's bytes are, whatever kind of place it is.
_SOURCE: Fields = {
    "file": Attr("", "file"),
    "dev": Attr("", "dev"),
    "dir": Attr("", "dir"),
    "pool": Attr("", "pool"),
    "volume": Attr("", "volume"),
    "protocol": Attr("", "protocol"),
    "name": Attr("", "name"),
    "hosts": Many("host", {"name": Attr("", "name"), "port": Attr("", "port", whole)}),
}

_LIMITS: Fields = {
    name: Text(name, whole) for name in LIMITS
}

_DISK: Fields = {
    "type": Attr("", "type"),
    "device": Attr("", "device"),
    "driver": One(
        "driver",
        {
            name: Attr("", name)
            for name in ("name", "type", "cache", "io", "discard", "detect_zeroes", "error_policy")
        },
    ),
    "source": One("source", _SOURCE),
    "target": One("target", {"dev": Attr("", "dev"), "bus": Attr("", "bus")}),
    "serial": Text("serial"),
    "limits": One("iotune", _LIMITS),
    "readonly": Present("readonly"),
    "shareable": Present("shareable"),
    "boot_order": _BOOT_ORDER,
    "address": _ADDRESS,
}

#: In KiB a second and KiB.
_BANDWIDTH: Fields = {
    way: One(way, {name: Attr("", name, whole) for name in ("average", "peak", "burst", "floor")})
    for way in ("inbound", "outbound")
}

#: By the device's `type`: of a PCI device domain to function, of a USB device bus and device, and so on.
_HOST_ADDRESS: Fields = {
    name: Attr("", name) for name in ("domain", "bus", "slot", "function", "device", "target", "unit", "uuid")
}

_INTERFACE: Fields = {
    "type": Attr("", "type"),
    "managed": Attr("", "managed", yes_no),
    "mac": Attr("mac", "address"),
    "source": One(
        "source",
        {name: Attr("", name) for name in ("network", "bridge", "dev", "mode", "portgroup")},
    ),
    # Of one that is a device of the host.
    "host_address": One("source/address", {"type": Attr("", "type"), **_HOST_ADDRESS}),
    "model": Attr("model", "type"),
    "target": Attr("target", "dev"),
    "mtu": Attr("mtu", "size", whole),
    "link": Attr("link", "state"),
    "limits": One("bandwidth", _BANDWIDTH),
    "filter": One(
        "filterref",
        {
            "name": Attr("", "filter"),
            "parameters": Many("parameter", {"name": Attr("", "name"), "value": Attr("", "value")}),
        },
    ),
    "vlan": Many("vlan/tag", {"id": Attr("", "id", whole)}),
    "boot_order": _BOOT_ORDER,
    "address": _ADDRESS,
}

_GRAPHICS: Fields = {
    "type": Attr("", "type"),
    "port": Attr("", "port", whole),
    "autoport": Attr("", "autoport", yes_no),
    "keymap": Attr("", "keymap"),
    "listens": Many(
        "listen",
        {name: Attr("", name) for name in ("type", "address", "network", "socket")},
    ),
}

_CHARACTER: Fields = {
    "type": Attr("", "type"),
    "source": One("source", {name: Attr("", name) for name in ("path", "mode", "host", "service")}),
    "target": One(
        "target",
        {"type": Attr("", "type"), "port": Attr("", "port", whole), "name": Attr("", "name")},
    ),
    "log": Attr("log", "file"),
}

_HOST_DEVICE: Fields = {
    "mode": Attr("", "mode"),
    "type": Attr("", "type"),
    "managed": Attr("", "managed", yes_no),
    "address": One("source/address", _HOST_ADDRESS),
    "usb": One("source", {"vendor": Attr("vendor", "id"), "product": Attr("product", "id")}),
    "boot_order": _BOOT_ORDER,
}

_DEVICES: Fields = {
    "emulator": Text("emulator"),
    "disks": Many("disk", _DISK),
    "interfaces": Many("interface", _INTERFACE),
    "controllers": Many("controller", {**_TYPE_MODEL, "index": Attr("", "index", whole)}),
    "filesystems": Many(
        "filesystem",
        {
            "type": Attr("", "type"),
            "source": Attr("source", "dir"),
            "target": Attr("target", "dir"),
            "readonly": Present("readonly"),
        },
    ),
    "graphics": Many("graphics", _GRAPHICS),
    "videos": Many(
        "video",
        {
            "model": Attr("model", "type"),
            "vram_kib": Attr("model", "vram", whole),
            "ram_kib": Attr("model", "ram", whole),
            "vgamem_kib": Attr("model", "vgamem", whole),
            "vram64_kib": Attr("model", "vram64", whole),
            "heads": Attr("model", "heads", whole),
        },
    ),
    "serials": Many("serial", _CHARACTER),
    "consoles": Many("console", _CHARACTER),
    "channels": Many("channel", _CHARACTER),
    "inputs": Many("input", {"type": Attr("", "type"), "bus": Attr("", "bus")}),
    "sounds": Many("sound", {"model": Attr("", "model")}),
    "watchdogs": Many("watchdog", {"model": Attr("", "model"), "action": Attr("", "action")}),
    "tpms": Many(
        "tpm",
        {
            "model": Attr("", "model"),
            "backend": Attr("backend", "type"),
            "version": Attr("backend", "version"),
        },
    ),
    "rngs": Many(
        "rng",
        {
            "model": Attr("", "model"),
            "backend": Attr("backend", "model"),
            "source": Text("backend"),
        },
    ),
    "memories": Many("memory", {"model": Attr("", "model"), "path": Text("source/path")}),
    "host_devices": Many("hostdev", _HOST_DEVICE),
    "balloon": Attr("memballoon", "model"),
}

DOMAIN: Fields = {
    "type": Attr("", "type"),
    "name": Text("name"),
    "uuid": Text("uuid"),
    "title": Text("title"),
    "description": Text("description"),
    "memory_bytes": Size("memory"),
    "current_memory_bytes": Size("currentMemory"),
    "memory_ceiling_bytes": Size("maxMemory"),
    "memory_slots": Attr("maxMemory", "slots", whole),
    "vcpus": Text("vcpu", whole),
    "current_vcpus": Attr("vcpu", "current", whole),
    "cpu": One(
        "cpu",
        {
            "mode": Attr("", "mode"),
            "match": Attr("", "match"),
            "check": Attr("", "check"),
            "migratable": Attr("", "migratable", on_off),
            # Before the text: an element that keeps an attribute would not go with its text.
            "fallback": Attr("model", "fallback"),
            "model": Text("model"),
            "vendor": Text("vendor"),
            "topology": One(
                "topology",
                {name: Attr("", name, whole) for name in ("sockets", "dies", "clusters", "cores", "threads")},
            ),
            "features": Many("feature", {"name": Attr("", "name"), "policy": Attr("", "policy")}),
        },
    ),
    "os": One(
        "os",
        {
            "type": Text("type"),
            "architecture": Attr("type", "arch"),
            "machine": Attr("type", "machine"),
            "firmware": Attr("", "firmware"),
            "firmware_features": Many(
                "firmware/feature", {"name": Attr("", "name"), "enabled": Attr("", "enabled", yes_no)}
            ),
            "loader_type": Attr("loader", "type"),
            "loader_readonly": Attr("loader", "readonly", yes_no),
            "loader_format": Attr("loader", "format"),
            "secure_boot": Attr("loader", "secure", yes_no),
            "loader": Text("loader"),
            "nvram_template": Attr("nvram", "template"),
            "nvram_template_format": Attr("nvram", "templateFormat"),
            "nvram_format": Attr("nvram", "format"),
            "nvram": Text("nvram"),
            "kernel": Text("kernel"),
            "initrd": Text("initrd"),
            "cmdline": Text("cmdline"),
            "init": Text("init"),
            "boot": Many("boot", {"dev": Attr("", "dev")}),
            "boot_menu": Attr("bootmenu", "enable", yes_no),
        },
    ),
    "features": Names("features"),
    "smm": Attr("features/smm", "state", on_off),
    "clock": One(
        "clock",
        {
            "offset": Attr("", "offset"),
            "timezone": Attr("", "timezone"),
            "timers": Many(
                "timer",
                {
                    "name": Attr("", "name"),
                    "present": Attr("", "present", yes_no),
                    "tickpolicy": Attr("", "tickpolicy"),
                },
            ),
        },
    ),
    "on_poweroff": Text("on_poweroff"),
    "on_reboot": Text("on_reboot"),
    "on_crash": Text("on_crash"),
    "devices": One("devices", _DEVICES),
    "traces": One(
        f"metadata/{{{TRACES}}}traces", {"firmware": Attr("", "firmware"), "tpm": Attr("", "tpm")}
    ),
}
