"""Map a frozen request and the names fixed for it to what drivers take. Not for: reading models."""

from collections.abc import Mapping
from typing import Any

import yaml

from portal.drivers.types import (
    Accelerator,
    CloneMode,
    DeviceModel,
    DiskSpec,
    DomainSpec,
    NetworkSpec,
    NicSpec,
    SeedSpec,
    VolumeSpec,
)
from portal.operations.registry import StepContext
from vms import profiles, virtualization
from vms.cloud import OURS, Invalid, contends


def further_disks(frozen: Mapping[str, Any]) -> list[int]:
    """Return the bytes of each disk that a machine gets after its first one; `frozen` is one machine's."""
    found: list[int] = frozen["pinned"].get("further", [])
    return found


def first_disk(frozen: Mapping[str, Any]) -> int:
    """Return the bytes of a machine's first disk: what a request asks for, without the further ones."""
    asked: int = frozen["sizes"]["disk"]
    return asked - sum(further_disks(frozen))


def volume_specs(context: StepContext) -> list[VolumeSpec]:
    """Return the machine's disks, cloned from the pinned image, the first one grown to its size."""
    names = context.identifiers
    first = {name: names[name] for name in ("volume", "image_path")} | {"capacity": first_disk(context.spec)}
    return [
        VolumeSpec(
            pool=names["pool"],
            name=disk["volume"],
            capacity_bytes=disk["capacity"],
            backing_path=disk["image_path"],
            clone=CloneMode(context.spec["pinned"]["clone"]),
        )
        for disk in (first, *names.get("further", ()))
    ]


def seed_spec(context: StepContext) -> SeedSpec:
    """Return the cloud-init seed. Format: cloud-init's NoCloud data source."""
    names = context.identifiers
    cloud = context.spec["pinned"]["cloud"]
    meta = {"instance-id": names["uuid"], "local-hostname": cloud["hostname"]}
    card = {"match": {"macaddress": names["mac"]}, "dhcp4": True}
    return SeedSpec(
        pool=names["pool"],
        name=names["seed"],
        meta_data=yaml.safe_dump(meta),
        user_data=user_data(cloud),
        network_config=yaml.safe_dump({"version": 2, "ethernets": {"primary": card}}),
    )


def user_data(cloud: dict[str, Any]) -> str:
    """Return cloud-init's user-data: the person's own document under what the form fixes.

    What the portal says wins, also over a document that `check_user_data` never saw. Raises Invalid for lists
    in a form that cannot be merged.
    """
    own = (yaml.safe_load(cloud["user_data"]) if cloud["user_data"] else None) or {}
    root = cloud["user"] == "root"
    document: dict[str, Any] = {"locale": "C.UTF-8"}
    document |= {key: value for key, value in own.items() if key not in OURS}
    document |= {"ssh_pwauth": False, "disable_root": not root}
    document |= {"hostname": cloud["hostname"], "fqdn": cloud["hostname"]}
    person: dict[str, Any] = {"name": cloud["user"]}
    if cloud["ssh_keys"]:  # cloud-init's schema refuses an empty list
        person["ssh_authorized_keys"] = cloud["ssh_keys"]
    if not root:
        person |= {"sudo": "ALL=(ALL) NOPASSWD:ALL", "shell": "/bin/bash", "lock_passwd": True}
    others = [entry for entry in _listed(own, "users") if not contends(entry, cloud["user"])]
    document["users"] = [person, *others]
    if cloud["packages"]:
        document["packages"] = [*_listed(own, "packages"), *cloud["packages"]]
    return "#cloud-config\n" + yaml.safe_dump(document, sort_keys=False)


def _listed(own: dict[str, Any], key: str) -> list[Any]:
    value = own.get(key) or []
    if not isinstance(value, list):
        raise Invalid(f"`{key}` must be a list.")
    return value


def network_spec(context: StepContext) -> NetworkSpec:
    """Return the pinned network as it was when the request was frozen."""
    return NetworkSpec(**context.spec["pinned"]["network"])


def _nic(context: StepContext) -> NicSpec:
    names, network = context.identifiers, network_spec(context)
    if network.user:
        return NicSpec(names["mac"], ssh_port=names["ssh_port"])
    return NicSpec(names["mac"], network.name)


def guest_memory(frozen: Mapping[str, Any]) -> int:
    """Return the bytes that a request leaves the guest: lowered, it leaves no more than its ceiling."""
    ceiling: int = frozen["sizes"]["memory"]
    return min(ceiling, frozen["pinned"].get("memory_now", ceiling))


def balloon(frozen: Mapping[str, Any]) -> int | None:
    """Return what a request leaves the guest of its memory, None for all of it."""
    left = guest_memory(frozen)
    return left if left < frozen["sizes"]["memory"] else None


def vcpu_ceiling(vcpus: int) -> int:
    """Return up to how many vCPUs a machine of `vcpus` can get while it runs.

    Room costs a guest some kilobytes a processor, and a restart is what people dread.
    """
    return min(max(4 * vcpus, 4), max(16, vcpus))


def domain_spec(context: StepContext) -> DomainSpec:
    """Return the domain under the name and UUID that were fixed at the approval."""
    names, sizes = context.identifiers, context.spec["sizes"]
    _wanted, devices = virtualization.pinned(dict(context.spec))
    board = profiles.FLAGS[profiles.pinned(context.spec)]
    return DomainSpec(
        name=names["domain"],
        uuid=names["uuid"],
        vcpus=sizes["vcpu"],
        vcpu_ceiling=vcpu_ceiling(sizes["vcpu"]),
        memory_bytes=sizes["memory"],
        memory_now_bytes=balloon(context.spec) or 0,
        disks=(
            DiskSpec(names["volume_path"], names.get("target", "vda")),
            *(DiskSpec(disk["volume_path"], disk["target"]) for disk in names.get("further", ())),
        ),
        nics=(_nic(context),),
        seed_path=names["seed_path"],
        title=context.spec["pinned"]["name"],
        accelerator=Accelerator(names["accelerator"]),
        devices=DeviceModel(devices),
        uefi=board.get("uefi", False),
        secure_boot=board.get("secure_boot", False),
        tpm=board.get("tpm", False),
        windows=board.get("windows", False),
    )
