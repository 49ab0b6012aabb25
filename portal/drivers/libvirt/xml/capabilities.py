"""The <capabilities> element, read only."""

from dataclasses import dataclass

from portal.drivers.libvirt.xml.build import parse
from portal.drivers.validation import host_uuid

FLAGS = ("vmx", "svm")  # Intel's and AMD's hardware assistance
MOST_MACHINES = 500


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What the host's own processor and its emulators for that processor offer."""

    arch: str
    cpu_model: str
    cpu_vendor: str
    virtualization_flag: str
    domain_types: frozenset[str]
    max_vcpus: int
    machine_types: tuple[str, ...]
    iommu: bool | None
    security_models: tuple[str, ...]
    uuid: str

    @classmethod
    def from_xml(cls, text: str) -> "Capabilities":
        """Read what libvirt reports; parts that are missing come out empty. Raises InvalidSpec."""
        root = parse(text)
        arch = root.findtext("host/cpu/arch") or ""
        features = {feature.get("name") for feature in root.iterfind("host/cpu/feature")}
        guests = [guest for guest in root.iterfind("guest/arch") if guest.get("name") == arch]
        machines = [m for guest in guests for m in guest.iterfind("machine")][:MOST_MACHINES]
        iommu = root.find("host/iommu")
        return cls(
            arch=arch,
            cpu_model=root.findtext("host/cpu/model") or "",
            cpu_vendor=root.findtext("host/cpu/vendor") or "",
            virtualization_flag=next((flag for flag in FLAGS if flag in features), ""),
            domain_types=frozenset(d.get("type", "") for guest in guests for d in guest.iterfind("domain")),
            max_vcpus=max((_number(machine.get("maxCpus")) for machine in machines), default=0),
            machine_types=tuple(sorted({machine.text or "" for machine in machines})),
            iommu=None if iommu is None else iommu.get("support") == "yes",
            security_models=tuple(model.text or "" for model in root.iterfind("host/secmodel/model")),
            uuid=host_uuid(root.findtext("host/uuid") or ""),
        )


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.isdecimal() else 0
