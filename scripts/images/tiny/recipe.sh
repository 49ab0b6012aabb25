# A tiny Linux for tests and for trying the portal. Sourced by scripts/images/build.

# Two kernels: the cloud one is up in half the time, and has no drivers for emulated devices. GRUB chooses.
TINY_PACKAGES=busybox-static,dropbear-bin,qemu-guest-agent,linux-image-cloud-amd64,linux-image-amd64
TINY_PROGRAMS=(usr/sbin/dropbear usr/bin/dropbearkey usr/sbin/qemu-ga)
TINY_CLOUD_MODULES=(
  virtio_pci virtio_blk virtio_scsi virtio_net virtio_console virtio_balloon virtio_rng
  sd_mod sr_mod isofs ext4 button evdev
)
TINY_PLAIN_MODULES=(ahci e1000e sd_mod sr_mod isofs ext4 button evdev psmouse)

# tiny_libraries FROM TO FILE...: copy what the files need, and what that needs. Fails when one is missing.
tiny_libraries() {
  local from=$1 to=$2 file name path
  shift 2
  for file in "$@"; do
    for name in $(objdump -p "$file" | awk '$1 == "NEEDED" { print $2 }'); do
      [ ! -e "$to/lib/$name" ] || continue
      path=$(find "$from/lib" "$from/usr/lib" -name "$name" | sort | head -n 1)
      [ -n "$path" ] || fail "tiny: no package holds $name, which ${file##*/} needs."
      cp -L "$path" "$to/lib/$name"
      tiny_libraries "$from" "$to" "$path"
    done
  done
}

# tiny_modules FROM VERSION TO MODULE...: copy drivers and what they need, listed in loading order in
# TO/etc/modules.
tiny_modules() {
  local from=$1 version=$2 to=$3 name list
  shift 3
  depmod -b "$from" "$version"
  mkdir -p "$to/lib/modules" "$to/etc"
  for name in "$@"; do
    list=$(modprobe -d "$from" -S "$version" --show-depends "$name") || fail "tiny: the kernel lacks $name."
    printf '%s\n' "$list"
  done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' | while read -r name; do
    cp "$name" "$to/lib/modules/"
    printf '%s\n' "${name##*/}" >>"$to/etc/modules"
  done
}

# tiny_initrd FROM OUT: pack a folder for the kernel, which unpacks several of them one over the other.
tiny_initrd() {
  (cd "$1" && find . | sort | cpio -o -H newc -R 0:0 --quiet) | zstd -q -19 >"$2"
}

# tiny_kernel FROM NAME SUFFIX DISK WORK MODULE...: put a kernel and its drivers on the disk.
tiny_kernel() {
  local from=$1 name=$2 suffix=$3 disk=$4 work=$5 kernel
  shift 5
  kernel=$(cd "$from/boot" && ls | grep -E "^vmlinuz-[0-9.]+-[0-9]+$suffix\$") || fail "tiny: there is no $name kernel."
  cp "$from/boot/$kernel" "$disk/boot/$name"
  tiny_modules "$from" "${kernel#vmlinuz-}" "$work/$name" "$@"
  tiny_initrd "$work/$name" "$disk/boot/$name.img"
}

# tiny_root FROM TO: the system as it will be in memory.
tiny_root() {
  local from=$1 to=$2 name
  mkdir -p "$to"/{bin,data,dev,disk,etc,lib,lib64,proc,root,run,sys,tmp,usr/bin,usr/sbin,var}
  cp -R --no-preserve=ownership "$HERE/tiny/files/." "$to/"
  cp "$from/bin/busybox" "$to/bin/"
  for name in $("$from/bin/busybox" --list); do
    [ -e "$to/bin/$name" ] || ln -s busybox "$to/bin/$name"
  done
  ln -s bin "$to/sbin"
  ln -s ../run "$to/var/run"
  ln -s bin/init "$to/init"
  for name in "${TINY_PROGRAMS[@]}"; do
    [ -f "$from/$name" ] || fail "tiny: no package holds $name."
    cp "$from/$name" "$to/$name"
  done
  cp -L "$from/lib64/ld-linux-x86-64.so.2" "$to/lib64/"
  tiny_libraries "$from" "$to" "${TINY_PROGRAMS[@]/#/$to/}"
  # Locked: root comes in by key, or by the password that a seed sets for the console.
  printf 'root:!:19000:0:99999:7:::\n' >"$to/etc/shadow"
  chmod 600 "$to/etc/shadow"
  chmod 700 "$to/root"
  chmod 1777 "$to/tmp"
}

# build_tiny WORK: leave WORK/tiny.qcow2.
build_tiny() {
  local work=$1 disk=$1/disk
  apt_sources "$work/apt"
  say "tiny: fetching packages"
  run_logged "$work/mmdebstrap.log" mmdebstrap --quiet --mode=root --variant=extract --format=directory \
    --aptopt='Acquire::Languages "none"' --aptopt='APT::Install-Recommends "false"' \
    --include="$TINY_PACKAGES" bookworm "$work/packages" "${SOURCES[@]}"
  say "tiny: packing the system"
  tiny_root "$work/packages" "$work/root"
  cp -R --no-preserve=ownership "$HERE/tiny/disk" "$disk"
  tiny_initrd "$work/root" "$disk/boot/system.img"
  tiny_kernel "$work/packages" cloud -cloud-amd64 "$disk" "$work" "${TINY_CLOUD_MODULES[@]}"
  tiny_kernel "$work/packages" plain -amd64 "$disk" "$work" "${TINY_PLAIN_MODULES[@]}"
  # What grub.cfg loads.
  mkdir -p "$disk/boot/grub/i386-pc"
  cp /usr/lib/grub/i386-pc/{setpci,pci,extcmd}.mod "$disk/boot/grub/i386-pc/"
  pack_disk tiny "$disk" tiny 128M "$work/tiny.qcow2"
}
