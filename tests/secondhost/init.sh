#!/bin/bash
# Process 1 of a second host: `init.sh FOLDER NAME`, in namespaces of its own. Not to be run by hand.
# It reads orders, a line each, from standard input; when that closes (whoever made the host is gone), the host ends.
set -u
DIR=$1
NAME=$2

isolate() {
  mount --make-rprivate /
  hostname "$NAME"
  mount -t proc proc /proc
  cgroups
  mkdir -p "$DIR"/{run/libvirt,run/lock,run/sshd,var/lib/libvirt,var/cache/libvirt,var/log/libvirt/qemu}
  local name
  for name in etc/libvirt etc/ssh etc/passwd etc/group etc/shadow etc/machine-id etc/hostname etc/hosts run \
    var/lib/libvirt var/cache/libvirt var/log/libvirt; do
    mount --bind "$DIR/$name" "/$name"
  done
  ip link set lo up
}

# This host's share of the machine's cgroups, seen from here as the whole.
cgroups() {
  local lines kind at options
  lines=$(awk '$3 ~ /^cgroup2?$/ {print $3, $2, $4}' /proc/mounts)
  umount -R /sys
  mount -t sysfs sysfs /sys
  [ "${lines%% *}" != cgroup2 ] || { mount -t cgroup2 cgroup /sys/fs/cgroup && return; }
  mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
  while read -r kind at options; do
    # cgroup2 beside version 1 is left out: libvirt's container driver fails on such a mixture.
    [ "$kind" = cgroup ] || continue
    mkdir -p "$at"
    case $options in
      *name=*) mount -t cgroup -o "none,name=${options##*name=}" cgroup "$at" ;;
      *) mount -t cgroup -o "${at##*/}" cgroup "$at" ;;
    esac
  done <<<"$lines"
}

# up PIDFILE: the daemon that wrote it lives.
up() { [ -s "$1" ] && kill -0 "$(cat "$1")" 2>/dev/null; }

# Every daemon that does not run. Standard input is the line that keeps the host alive: nobody else may hold it.
start() {
  up /run/virtlogd.pid || virtlogd -d </dev/null
  up /run/libvirtd.pid || libvirtd -d </dev/null
  up /run/sshd.pid || /usr/sbin/sshd </dev/null
}

isolate
start
while read -r order; do
  case $order in
    start) start ;;
    libvirtd-kill)
      kill -9 "$(cat /run/libvirtd.pid)"
      # While it is dying it seems up, and would not be started again.
      while up /run/libvirtd.pid; do sleep 0.01; done
      ;;
    libvirtd-stop) kill -STOP "$(cat /run/libvirtd.pid)" ;;
    libvirtd-continue) kill -CONT "$(cat /run/libvirtd.pid)" ;;
  esac
done
