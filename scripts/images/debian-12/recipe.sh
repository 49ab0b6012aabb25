# Debian 12 for machines that last. Sourced by scripts/images/build.

DEBIAN_PACKAGES=(
  systemd-sysv udev dbus libpam-systemd systemd-resolved systemd-timesyncd libnss-myhostname
  linux-image-cloud-amd64 initramfs-tools busybox zstd kmod
  cloud-init cloud-guest-utils fdisk e2fsprogs
  openssh-server qemu-guest-agent sudo
  iproute2 iputils-ping netbase ca-certificates curl less vim-tiny
)

# build_debian_12 WORK: leave WORK/debian-12.qcow2 and WORK/cloud-config-schema.json.
build_debian_12() {
  local work=$1 root=$1/root include
  include=$(IFS=,; printf '%s' "${DEBIAN_PACKAGES[*]}")
  apt_sources "$work/apt"
  say "debian-12: installing packages (about a minute)"
  # Man pages and the like are left out of the image; packages installed later bring theirs.
  APT_SOURCES=$work/apt run_logged "$work/mmdebstrap.log" mmdebstrap --quiet --mode=root --variant=minbase \
    --format=directory --include="$include" \
    --aptopt='Acquire::Languages "none"' --aptopt='APT::Install-Recommends "false"' \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/info/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-include=/usr/share/doc/*/copyright' \
    --essential-hook="$HERE/debian-12/prepare" --customize-hook="$HERE/debian-12/customize" \
    bookworm "$root" "${SOURCES[@]}"
  cp "$root/usr/lib/python3/dist-packages/cloudinit/config/schemas/schema-cloud-config-v1.json" \
    "$work/cloud-config-schema.json"
  pack_disk debian-12 "$root" root 2G "$work/debian-12.qcow2"
}
