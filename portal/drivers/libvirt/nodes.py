"""Files that an emulator has open and libvirt does not know of; not for those that libvirt manages.

libvirt writes down what it attached when all of it is done. Of one that died before that, QEMU keeps the file
open for writing and refuses it to every further attempt: first the name of the node, then the file's lock.
"""

import json
import re
from typing import Any

import libvirt
import libvirt_qemu

from portal.drivers.errors import GuestIgnores
from portal.drivers.libvirt.plugging import PATIENCE, wait_until
from portal.drivers.libvirt.xml.build import parse

_REFUSAL = "unable to execute QEMU command"
#: How libvirt calls its nodes; the number is the `index` of a source in what runs.
_NODE = re.compile(r"libvirt-(\d+)-(?:format|storage)")
_DEVICES = "/machine/peripheral/"


def is_refusal(error: libvirt.libvirtError) -> bool:
    """Tell whether it is QEMU that refused, and not libvirt."""
    return _REFUSAL in str(error)


def let_go(domain: libvirt.virDomain, path: str) -> bool:
    """Let QEMU close the file `path` where libvirt does not know that it has it; return whether it was so.

    libvirt marks the domain as tainted (custom-monitor) for the question. Raises GuestIgnores when a guest
    has it as a disk already and keeps it.
    """
    found = _unknown(domain, path)
    for device in _devices(domain, found):
        _tell(domain, "device_del", id=device)
    if not wait_until(lambda: not _devices(domain, found)):
        raise GuestIgnores(f"{path} is still a disk {PATIENCE:g} s after the guest was asked")
    left = set(found)
    # A node that another one stands on goes after that.
    while gone := {node for node in left if _delete(domain, node)}:
        left -= gone
    return left < found


def _delete(domain: libvirt.virDomain, node: str) -> bool:
    return "error" not in _tell(domain, "blockdev-del", **{"node-name": node})


def _unknown(domain: libvirt.virDomain, path: str) -> set[str]:
    """Return the nodes of a file, and of the images it stands on, whose numbers libvirt does not know."""
    # Asked first: libvirt answers between two changes, and knows by then what it did.
    told = _tell(domain, "query-named-block-nodes", flat=True)["return"]
    nodes = {node["node-name"]: node for node in told}
    sources = parse(domain.XMLDesc()).iterfind("devices/disk//*[@index]")
    known = {source.get("index") for source in sources}
    found: set[str] = set()
    paths = {path}
    while more := {
        name
        for name, node in nodes.items()
        if name not in found and node["file"] in paths
        if (libvirts := _NODE.fullmatch(name)) and libvirts[1] not in known
    }:
        found |= more
        paths |= {nodes[name]["backing_file"] for name in more if "backing_file" in nodes[name]}
    return found


def _devices(domain: libvirt.virDomain, nodes: set[str]) -> set[str]:
    """Return the devices of a guest that have one of these nodes."""
    blocks = _tell(domain, "query-block")["return"] if nodes else ()
    have = [block for block in blocks if block.get("inserted", {}).get("node-name") in nodes]
    return {block["qdev"].removeprefix(_DEVICES).partition("/")[0] for block in have if block.get("qdev")}


def _tell(domain: libvirt.virDomain, command: str, **arguments: Any) -> dict[str, Any]:
    """Return QEMU's answer to a command of its protocol (QMP): `return` or `error`."""
    text = json.dumps({"execute": command, "arguments": arguments})
    answer: dict[str, Any] = json.loads(libvirt_qemu.qemuMonitorCommand(domain, text, 0))
    return answer
