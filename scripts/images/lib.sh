# What the recipes share: package sources, running quietly, packing a disk. Sourced by scripts/images/build.

fail() {
  say "$*" >&2
  exit 1
}

# run_logged LOG COMMAND...: run quietly; when it fails, show the end of what it said.
run_logged() {
  local log=$1
  shift
  "$@" >"$log" 2>&1 || {
    tail -40 "$log" >&2
    fail "$1 failed; its last lines are above."
  }
}

# apt_sources FOLDER: where packages come from, into FOLDER/debian.sources and debian.list, and those files' names into
# SOURCES: this machine's own Debian 12 sources, else the mirror that GATEHOUSE_DEBIAN_MIRROR names. On another system,
# such as Ubuntu, without that there are none: mmdebstrap then takes Debian's mirror, with updates and security.
# Other vendors' sources are left out: the image must hold Debian's packages only.
apt_sources() {
  local file etc=${GATEHOUSE_APT_ETC:-/etc/apt}
  mkdir -p "$1"
  for file in "$etc"/sources.list.d/*.sources; do
    [ -f "$file" ] || continue
    grep -v '^#' "$file" | awk -v RS= -v ORS='\n\n' '
      /(^|\n)Suites:[^\n]*bookworm/ && /(^|\n)Components:[^\n]* main/ && !/(^|\n)Enabled: *no/ &&
      (!/(^|\n)Signed-By:/ || /(^|\n)Signed-By:[^\n]*debian-archive/)'
  done >"$1/debian.sources"
  for file in "$etc"/sources.list "$etc"/sources.list.d/*.list; do
    [ -f "$file" ] || continue
    awk '/^deb .* bookworm[^ ]* .*main/ && (!/signed-by=/ || /signed-by=[^] ]*debian-archive/)' "$file"
  done >"$1/debian.list"
  find "$1" -size 0 -delete
  if [ -z "$(ls "$1")" ] && [ -n "${GATEHOUSE_DEBIAN_MIRROR:-}" ]; then
    printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s bookworm main\n' \
      "$GATEHOUSE_DEBIAN_MIRROR" >"$1/debian.list"
  fi
  SOURCES=("$1"/debian.*)
  [ -f "${SOURCES[0]}" ] || SOURCES=()
  [ ${#SOURCES[@]} -eq 0 ] || ! grep -qE '://[^/ ]*@' "${SOURCES[@]}" ||
    fail "This machine's apt sources hold a password, which must not get into an image."
}

# pack_disk NAME ROOT LABEL SIZE OUT: a folder becomes a bootable qcow2 disk, without loop devices or mounts.
pack_disk() {
  local name=$1 root=$2 label=$3 size=$4 out=$5 raw=$5.raw core=$5.core modules=/usr/lib/grub/i386-pc
  local start=$((1024 * 1024)) bytes
  say "$name: packing the disk"
  truncate -s "$size" "$raw"
  bytes=$(($(stat -c %s "$raw") - start))
  printf 'start=2048, type=83, bootable\n' | sfdisk -q --label dos "$raw"
  # The two features are unknown to older GRUBs. Tables are written now, so that no guest does it later.
  mke2fs -q -F -t ext4 -L "$label" -m 1 -O ^metadata_csum_seed,^orphan_file -d "$root" \
    -E "offset=$start,lazy_itable_init=0,lazy_journal_init=0" "$raw" "$((bytes / 1024))k"
  # No drive before the comma: the disk that the BIOS started from.
  grub-mkimage -d "$modules" -O i386-pc -o "$core" -p '(,msdos1)/boot/grub' \
    biosdisk part_msdos ext2 normal linux boot configfile test
  [ "$(stat -c %s "$core")" -le $((start - 512)) ] || fail "GRUB does not fit before the first partition."
  dd if="$modules/boot.img" of="$raw" bs=440 count=1 conv=notrunc status=none
  dd if="$core" of="$raw" bs=512 seek=1 conv=notrunc status=none
  qemu-img convert -c -O qcow2 -o compression_type=zstd "$raw" "$out"
  rm -f "$raw" "$core"
}
