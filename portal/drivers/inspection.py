"""Say what the portal understands of a definition and what it would keep untouched. Not for: changing it."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from portal.drivers.libvirt.xml.foreign.document import LONGEST, Understood, parse
from portal.drivers.libvirt.xml.foreign.domain import DOMAIN
from portal.drivers.libvirt.xml.foreign.fields import read_all
from portal.drivers.libvirt.xml.foreign.network import NETWORK
from portal.drivers.libvirt.xml.foreign.volume import VOLUME

__all__ = ["LONGEST", "Inspection", "Kind", "inspect"]


class Kind(StrEnum):
    """What a definition defines: the name of its root element."""

    DOMAIN = "domain"
    NETWORK = "network"
    VOLUME = "volume"


_TABLES = {Kind.DOMAIN: DOMAIN, Kind.NETWORK: NETWORK, Kind.VOLUME: VOLUME}


@dataclass(frozen=True, slots=True)
class Inspection:
    """`understood`: values by name, sizes in bytes. `kept`: what else is there, see `Understood.kept`."""

    understood: dict[str, Any]
    kept: list[dict[str, str]]


def inspect(kind: Kind, content: bytes) -> Inspection:
    """Read a definition of libvirt's. Raises InvalidSpec for what is none of that kind."""
    root = parse(content, kind)
    noted = Understood()
    noted.element(root)
    return Inspection(read_all(_TABLES[kind], root, noted), noted.kept(root))
