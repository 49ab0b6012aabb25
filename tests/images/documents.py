"""What people typically give cloud-init, and what the portal makes of it. Not for: the rest of a form."""

from typing import Any

from vms import specs

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBqlmw4cs6tlQDlWZnzSDE a: 'b' # c"
OTHER_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOtherOtherOtherOther other"

OWN = {
    "nothing": "",
    "comments": "#cloud-config\n# nothing yet\n",
    "files and commands": """#cloud-config
write_files:
- path: /srv/note
  permissions: '0640'
  owner: root:root
  content: |
    grüße: "two"
      lines
- {path: /srv/binary, encoding: b64, content: AAEC}
bootcmd: [echo early]
runcmd: [ls, [sh, -c, "echo a: b"]]
""",
    "people and groups": f"""#cloud-config
groups: [crew, {{ops: [ann]}}]
users:
- default
- name: ann
  gecos: Ann
  groups: [crew, adm]
  shell: /bin/bash
  ssh_authorized_keys: ["{OTHER_KEY}"]
- {{name: daemon2, system: true}}
""",
    "packages and sources": """#cloud-config
package_update: true
packages: [curl, [git, "1:2.39.5-0+deb12u2"]]
apt:
  sources:
    own: {source: "deb [signed-by=$KEY_FILE] http://deb.example.org/ bookworm main", keyid: F430BBA5}
""",
    "clock, disk and end": """#cloud-config
timezone: Etc/UTC
locale: C.UTF-8
ntp: {enabled: true, servers: [ntp.example.org]}
growpart: {mode: auto, devices: ["/"]}
swap: {filename: /swap, size: 64M}
mounts: [[/dev/vdb, /srv, ext4, defaults]]
ssh_authorized_keys: ["{OTHER_KEY}"]
power_state: {mode: reboot, condition: "false"}
final_message: "up after $UPTIME s"
""".replace("{OTHER_KEY}", OTHER_KEY),
}

#: Documents that the form refuses, as if one had slipped through: each takes the requester's key away.
RIVALS = {
    "by user": f'#cloud-config\nuser: {{name: debian, ssh_authorized_keys: ["{OTHER_KEY}"]}}\n',
    "by default": f'#cloud-config\nusers: [{{name: default, ssh_authorized_keys: ["{OTHER_KEY}"]}}]\n',
    "by no name": f'#cloud-config\nusers: [{{ssh_authorized_keys: ["{OTHER_KEY}"]}}]\n',
    "by name": "#cloud-config\nusers: [{name: debian, inactive: '1', ssh_redirect_user: true}, default]\n",
}


def asked(own: str, **changes: Any) -> dict[str, Any]:
    """Return the part of a frozen request that is about cloud-init."""
    usual = {"user": "debian", "hostname": "web-1", "ssh_keys": [KEY], "packages": ["nginx"]}
    return usual | {"user_data": own} | changes


def merged() -> dict[str, str]:
    """Return what the portal writes to the seed, by a name for each request."""
    typical = {name: asked(own) for name, own in OWN.items()}
    typical["as root"] = asked("", user="root", packages=[])
    typical["without a key"] = asked("", user="ann", ssh_keys=[], hostname="yes", packages=["g++", "a=1"])
    return {name: specs.user_data(request) for name, request in typical.items()}


def overridden() -> dict[str, str]:
    """Return the same for the rivals."""
    return {name: specs.user_data(asked(own)) for name, own in RIVALS.items()}
