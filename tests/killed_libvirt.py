"""Workers whose libvirtd dies at a chosen call and is started again. Run by `killed_turns`.

They have real children for their driver's calls, and in these every call of libvirt's that changes something
is counted. What a test orders lies in the folder `KILLS`: after how many calls, and whether libvirtd dies
before the call, while it is made, or after it, when nobody is told what came of it.
"""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

#: Names the folder, in the environment.
KILLS = "GATEHOUSE_TEST_KILLS"
WHEN = ("before", "during", "after")
CHANGES = {
    "virConnect": ("defineXML", "networkDefineXML", "storagePoolDefineXML"),
    "virDomain": (
        "attachDeviceFlags",
        "blockCopy",
        "blockJobAbort",
        "blockResize",
        "create",
        "createWithFlags",
        "destroy",
        "detachDeviceFlags",
        "managedSave",
        "managedSaveRemove",
        "resume",
        "setAutostart",
        "setBlockIoTune",
        "setInterfaceParameters",
        "setMemoryFlags",
        "setVcpusFlags",
        "suspend",
        "undefineFlags",
        "updateDeviceFlags",
    ),
    "virNetwork": ("create", "destroy", "setAutostart", "undefine"),
    "virStoragePool": (
        "create",
        "createXML",
        "createXMLFrom",
        "delete",
        "destroy",
        "setAutostart",
        "undefine",
    ),
    "virStorageVol": ("delete", "download", "resize", "upload"),
    "virStream": ("finish",),
}
#: Counted for what changes nothing on the host.
READS = {
    "virConnect": ("listAllStoragePools",),
    "virDomain": ("XMLDesc",),
    "virStoragePool": ("listAllVolumes",),
    "virStorageVol": ("XMLDesc",),
}
#: Seconds into a call that takes its time; others are over after a few thousandths.
SLOW, QUICK = 0.1, 0.002
_SLOW_CALLS = ("createXMLFrom", "managedSave", "create", "network-create", "blockCopy", "finish")


def order(folder, when, number, *, reads=False):
    """Order that libvirtd dies `when` the call of that `number` is made; forget what was called so far."""
    (folder / "called").write_text("")
    (folder / "orders").write_text(json.dumps([when, number, reads]))


def called(folder):
    """Return the names of the calls that were counted."""
    return (folder / "called").read_text().split()


def is_dead(folder):
    """Tell whether libvirtd died as it was ordered."""
    return not (folder / "orders").exists()


def _due(folder, name, reads):
    """Count a call; return when libvirtd dies of it, '' for not at all."""
    if is_dead(folder):
        return ""
    when, left, counts_reads = json.loads((folder / "orders").read_text())
    if reads and not counts_reads:
        return ""
    with (folder / "called").open("a") as file:
        file.write(f"{name}\n")
    if left == 1:
        (folder / "orders").unlink()
        return when
    (folder / "orders").write_text(json.dumps([when, left - 1, counts_reads]))
    return ""


def _die(folder, after=0.0):
    """Have libvirtd killed and started again; return once it answers."""
    time.sleep(after)
    with socket.socket(socket.AF_UNIX) as asking:
        asking.connect(str(folder / "killer"))
        asking.recv(1)


def _mortal(folder, name, function, reads):
    def call(self, *args, **kwargs):
        when = _due(folder, name, reads)
        if when == "before":
            _die(folder)
        if when != "during":
            answer = function(self, *args, **kwargs)
            if when == "after":
                _die(folder)
                # Whose connection is dead too: what the caller sees of it is libvirt's own error.
                getattr(self, "_conn", self).getLibVersion()
            return answer
        killing = threading.Thread(target=_die, args=(folder, SLOW if name in _SLOW_CALLS else QUICK))
        killing.start()
        try:
            return function(self, *args, **kwargs)
        finally:
            killing.join()

    return call


def child(descriptor, uri):
    """Be the child of a driver's calls, as `portal.drivers.child` is."""
    import libvirt

    from portal.drivers.child import main

    folder = Path(os.environ[KILLS])
    for reads, kinds in ((False, CHANGES), (True, READS)):
        for kind, names in kinds.items():
            for name in names:
                of = getattr(libvirt, kind)
                told = f"network-{name}" if kind == "virNetwork" else name
                setattr(of, name, _mortal(folder, told, getattr(of, name), reads))
    main(descriptor, uri)


def _with_such_children(command, **options):
    return subprocess.Popen([__spec__.name if part == "portal.drivers.child" else part for part in command],
                            **options)


def work():
    import django

    django.setup()
    from portal.drivers import pool
    from tests import dying

    pool.subprocess = SimpleNamespace(Popen=_with_such_children, DEVNULL=subprocess.DEVNULL)
    dying.serve()


if __name__ == "__main__":
    if sys.argv[1:]:
        child(int(sys.argv[1]), sys.argv[2])
    else:
        work()
