# libvirt for live tests. Sourced, not run.

# start_libvirt: use the machine's libvirt; where no service manager runs it, start it and set LIBVIRT_STARTED.
start_libvirt() {
  # A /dev/kvm that only root may open makes libvirt distrust its capability cache: minutes for each define.
  if [ -e /dev/kvm ] && getent group kvm >/dev/null; then chgrp kvm /dev/kvm && chmod 660 /dev/kvm; fi
  virsh -q -c qemu:///system version >/dev/null 2>&1 && return 0
  if [ -d /run/systemd/system ]; then
    systemctl start libvirtd
  else
    setsid virtlogd -d
    setsid libvirtd -d
    LIBVIRT_STARTED=1
  fi
  local tries
  for tries in $(seq 100); do
    virsh -q -c qemu:///system version >/dev/null 2>&1 && return 0
    sleep 0.1
  done
  say "libvirtd does not answer after 10 s (tried $tries times)."
  return 1
}

stop_libvirt() {
  [ "${LIBVIRT_STARTED:-}" = 1 ] || return 0
  local name
  for name in libvirtd virtlogd; do
    [ -s "/run/$name.pid" ] && kill "$(cat "/run/$name.pid")" || true
  done
}
