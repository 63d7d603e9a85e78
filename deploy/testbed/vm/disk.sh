#!/usr/bin/env bash
# usage: disk.sh
#
# Makes what the virtual machine boots from, once, and prints the folder that has it:
#   kernel   Debian trixie's for clouds
#   initrd   loads the disk's driver and goes on to the disk
#   root     an ext4 file system: a small trixie, with systemd, and the bed's programs of sid
#
# The folder lies in the test bed's cache (fetch.sh). It is made anew when this folder's scripts or the bed's programs change.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/../lib.sh"
# shellcheck source-path=SCRIPTDIR source=../apt.sh
. "$TESTBED_SOURCE/apt.sh"

readonly VM_SOURCE=$TESTBED_SOURCE/vm
readonly VM_CACHE=$TESTBED_CACHE/vm

# What the machine has; apt adds what these depend on.
readonly PACKAGES=(
  linux-image-cloud-amd64 base-files base-passwd
  systemd dbus # the second way to boot
  # Scripts of the bed, and what it needs from a machine.
  bash bsdutils coreutils dash findutils grep hostname mawk mount procps sed util-linux
  iproute2 iptables jq kmod runc
  # What tests call, and what their programs are linked to.
  btrfs-progs busybox-static e2fsprogs libgcc-s1 libseccomp2
)
# Room for images and logs; the file has holes.
readonly ROOT_SIZE=6G

# Everything that the result depends on, but for versions: those are what the mirror has when it is made.
fingerprint() {
  {
    cat "$VM_SOURCE"/disk.sh "$VM_SOURCE"/initrd "$VM_SOURCE"/tests.service
    cat "$(suite_dir sid)/SHA256SUMS"
  } | sha256sum | cut -c1-16
}

# Downloads the packages and unpacks them into $2; $1 is a folder for apt.
unpack_packages() {
  local apt=$1 root=$2 package
  say "virtual machine: downloading packages of trixie"
  APT_CONFIG=$apt/etc/apt.conf apt-get update -qq
  APT_CONFIG=$apt/etc/apt.conf apt-get install -y -qq --download-only --no-install-recommends "${PACKAGES[@]}" >&2
  say "virtual machine: unpacking"
  mkdir "$root"
  for package in "$apt"/cache/archives/*.deb; do dpkg-deb -x "$package" "$root"; done
}

# No package was configured: what their scripts would have done, as far as it is needed.
configure_root() {
  local root=$1 name kernel
  for name in passwd group; do cp "$root/usr/share/base-passwd/$name.master" "$root/etc/$name"; done
  # The first command of a family is what an alternative points to.
  ln -s mawk "$root/usr/bin/awk"
  for name in iptables ip6tables; do
    ln -s "$name-nft" "$root/usr/sbin/$name"
  done
  echo coracle-vm >"$root/etc/hostname"
  echo '127.0.0.1 localhost coracle-vm' >"$root/etc/hosts"
  : >"$root/etc/machine-id"
  install -D -m 644 "$VM_SOURCE/tests.service" "$root/etc/systemd/system/tests.service"
  kernel=$(basename "$root"/usr/lib/modules/*)
  depmod --basedir "$root" "$kernel"
}

# The bed's programs, where TESTBED_CACHE of the virtual machine looks for them.
add_suite() {
  local root=$1 suite=$1/opt/testbed/suite/sid
  mkdir -p "$suite"
  cp -a "$(suite_dir sid)/." "$suite"
}

make_initrd() {
  local root=$1 file=$2 kernel tree
  tree=$(dirname "$file")/tree
  kernel=$(basename "$root"/usr/lib/modules/*)
  mkdir -p "$tree"/{bin,dev,proc,root}
  cp "$root/usr/bin/busybox" "$tree/bin/busybox"
  install -m 755 "$VM_SOURCE/initrd" "$tree/init"
  xz -dc "$root/usr/lib/modules/$kernel/kernel/drivers/block/virtio_blk.ko.xz" >"$tree/virtio_blk.ko"
  (cd "$tree" && find . | busybox cpio -o -H newc 2>/dev/null) | gzip -1 >"$file"
  rm -r "$tree"
}

# Makes all of it beside its place and moves it there, so that it is whole or absent.
make_disk() {
  local target=$1 new=$VM_CACHE/new mirror
  rm -rf "$VM_CACHE"
  mkdir -p "$new"
  mirror=$(find_mirror)
  configure_apt trixie "$mirror" "$new/apt"
  unpack_packages "$new/apt" "$new/tree"
  rm -r "$new/apt"
  configure_root "$new/tree"
  add_suite "$new/tree"
  mkdir "$new/disk"
  cp "$new/tree"/boot/vmlinuz-* "$new/disk/kernel"
  make_initrd "$new/tree" "$new/disk/initrd"
  # shellcheck disable=SC2094 # the folder is read, the file written
  mkfs.ext4 -q -O ^has_journal -d "$new/tree" "$new/disk/root" "$ROOT_SIZE" >/dev/null
  mv "$new/disk" "$target"
  rm -r "$new"
}

main() {
  case ${1-} in
    -h | --help)
      print_help "${BASH_SOURCE[0]}"
      return 0
      ;;
    '') ;;
    *) usage_error "unknown argument: $1" ;;
  esac
  require_root
  fetched c21 || "$TESTBED_SOURCE/fetch.sh"
  mkdir -p "$TESTBED_CACHE"
  exec 8>"$TESTBED_CACHE/vm.lock"
  flock 8
  local target
  target=$VM_CACHE/$(fingerprint)
  [[ -d $target ]] || make_disk "$target"
  echo "$target"
}

main "$@"
