# libvirt where no service manager runs it. Sourced, not run.
#: Says that a script of this state started libvirtd, and with which process id.
LIBVIRT_NOTE=$STATE/run/libvirtd.started

# start_libvirt: use the machine's libvirt; where no service manager runs it, start it and note that.
start_libvirt() {
  # A /dev/kvm that only root may open makes libvirt distrust its capability cache: minutes for each define.
  if [ -e /dev/kvm ] && getent group kvm >/dev/null; then chgrp kvm /dev/kvm && chmod 660 /dev/kvm; fi
  virsh -q -c qemu:///system version >/dev/null 2>&1 && return 0
  say "Starting libvirt"
  if [ -d /run/systemd/system ]; then
    systemctl start libvirtd
  else
    mkdir -p "$(dirname "$LIBVIRT_NOTE")"
    # It outlives a libvirtd that was killed, and a second one refuses to start.
    kill -0 "$(cat /run/virtlogd.pid 2>/dev/null)" 2>/dev/null || setsid virtlogd -d
    setsid libvirtd -d
    cat /run/libvirtd.pid >"$LIBVIRT_NOTE"
  fi
  local tries
  for tries in $(seq 100); do
    virsh -q -c qemu:///system version >/dev/null 2>&1 && return 0
    sleep 0.1
  done
  say "libvirtd does not answer after 10 s (tried $tries times)."
  return 1
}

# session_host: sets HOST to this user's own libvirt, which needs no root; says in a sentence what is missing.
session_host() {
  local name missing=()
  for name in libvirtd virsh qemu-system-x86_64 qemu-img; do
    PATH=$PATH:/usr/sbin:/sbin command -v "$name" >/dev/null || missing+=("$name")
  done
  if [ ${#missing[@]} -gt 0 ]; then
    say "This machine builds no machines, because ${missing[*]} is missing; root installs libvirt-daemon-system and qemu-system-x86, or an admin enrols other hosts in the browser."
    return 0
  fi
  say "Not root: machines run as $(id -un), each with a network of its own, and the web process does too."
  HOST=(--host "$(hostname)" qemu:///session "${GATEHOUSE_POOL:-$STATE/pool}")
}

# share_images: use the images of a folder that root built for everybody, unless there are own ones.
share_images() {
  local shared=${GATEHOUSE_IMAGES:-/var/lib/gatehouse/images}
  [ ! -e "$STATE/images" ] && [ -r "$shared/images.json" ] || return 0
  say "Using the images in $shared"
  ln -s "$shared" "$STATE/images"
}

# stop_libvirt: end the libvirtd that a script of this state started. Its guests go on running.
stop_libvirt() {
  [ -f "$LIBVIRT_NOTE" ] || return 0
  # A libvirtd that somebody started since is not ours to stop.
  if [ "$(cat "$LIBVIRT_NOTE")" = "$(cat /run/libvirtd.pid 2>/dev/null)" ]; then
    kill "$(cat /run/libvirtd.pid)" 2>/dev/null || true
    [ ! -s /run/virtlogd.pid ] || kill "$(cat /run/virtlogd.pid)" 2>/dev/null || true
  fi
  rm -f "$LIBVIRT_NOTE"
}
