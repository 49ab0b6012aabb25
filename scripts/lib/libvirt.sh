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
    setsid virtlogd -d
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
