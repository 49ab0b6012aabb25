"""Whether this machine's kernel can limit network cards as libvirt asks it to. Needs root."""

import shutil
import subprocess
from functools import cache

#: libvirt 9.0 asks for SFQ, newer ones for FQ-CoDel.
_TRY = """set -e
ip link add gtshape type veth peer name gtshape1
tc qdisc add dev gtshape root handle 1: htb default 1
tc class add dev gtshape parent 1: classid 1:1 htb rate 1000kbps
tc qdisc add dev gtshape parent 1:1 handle 2: sfq perturb 10
tc qdisc add dev gtshape parent 1:1 handle 2: fq_codel || true
tc filter add dev gtshape parent 1:0 protocol all prio 1 handle 1 fw flowid 1
tc qdisc add dev gtshape ingress
tc filter add dev gtshape parent ffff: protocol all u32 match u32 0 0 police rate 1000kbps burst 1000kb \\
  mtu 64kb drop flowid :1
"""


@cache
def can_shape():
    """Try it on a card of a network namespace of its own."""
    return subprocess.run(["unshare", "--net", "sh", "-c", _TRY], capture_output=True).returncode == 0


def shaped(device):
    """Return the lines in which the kernel says how a card of this host is limited, '' for not at all."""
    lines = []
    for kind in ("qdisc", "class"):
        command = ["tc", kind, "show", "dev", device]
        lines += subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
    return "\n".join(line for line in lines if "htb" in line or "ingress" in line)


#: Passes on what the kernel has; what it lacks it only writes down. Without the marks all goes by one class.
_STAND_IN = """#!/bin/sh
echo "$*" >>"{folder}/tc.log"
case "$*" in
  *" sfq "* | *" fq_codel"* | *"filter add "*" fw "* | *" police "*) exit 0 ;;
esac
exec "{folder}/tc" "$@"
"""


def let_shape(host):
    """Let a further host limit cards where this machine's kernel cannot; what is outbound is not."""
    if can_shape():
        return
    real = shutil.which("tc")
    shutil.copy(real, host.folder / "tc")
    stand_in = host.folder / "tc.sh"
    stand_in.write_text(_STAND_IN.format(folder=host.folder))
    stand_in.chmod(0o755)
    host.run("mount", "--bind", stand_in, real)
