#!/usr/bin/env bash
# usage: run.sh [--systemd] [--keep FOLDER] [--] [NAME]...
#
# Boots a virtual machine that has cgroup v2 and nothing of v1, runs tests of this checkout in it, prints a table of their
# results, and fails when one failed, did not run, or ran nothing. Tests are named in `tests` beside this script; without
# names all of them run. Build first: `cargo build --workspace --bins` and test-images/build.sh.
#
#   --systemd      systemd is the first process, and the tests are those of `tests.systemd`
#   --short        under emulation without those that take minutes there
#   --keep FOLDER  keep the console and what the tests said
#
# Environment:
#   CORACLE_VM_ACCEL    kvm, tcg (emulation, some 15 times slower) or auto, the default: kvm where it works
#   CORACLE_VM_TIMEOUT  seconds until the machine is given up (default 1200; with tcg 6000)
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/../lib.sh"

readonly VM_SOURCE=$TESTBED_SOURCE/vm
readonly MEMORY=3G
# Nothing but what is named; a reboot ends it.
readonly BARE=(-machine q35 -display none -nodefaults -no-reboot -nic none)

parse_arguments() {
  SYSTEMD='' SHORT='' KEEP='' NAMES=()
  while (($#)); do
    case $1 in
      -h | --help)
        print_help "${BASH_SOURCE[0]}"
        exit 0
        ;;
      --systemd) SYSTEMD=yes ;;
      --short) SHORT=yes ;;
      --keep)
        (($# >= 2)) || usage_error "--keep needs a value"
        KEEP=$2
        shift
        ;;
      --)
        shift
        break
        ;;
      -*) usage_error "unknown argument: $1" ;;
      *) break ;;
    esac
    shift
  done
  NAMES=("$@")
}

install_qemu() {
  command -v qemu-system-x86_64 >/dev/null && return 0
  require_root
  say "installing qemu-system-x86 from this machine's Debian"
  apt-get update -qq
  RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends qemu-system-x86 >/dev/null
}

# Whether a machine with hardware support runs this kernel: not every /dev/kvm does. One that fails stops, and says so.
kvm_works() {
  local disk=$1 work=$2 pid deadline=$((SECONDS + 30)) status=1
  [[ -w /dev/kvm ]] || return 1
  qemu-system-x86_64 -accel kvm -cpu host -m 512M "${BARE[@]}" -kernel "$disk/kernel" -initrd "$disk/initrd" \
    -append 'quiet VM_PROBE=1' >"$work/probe" 2>&1 &
  pid=$!
  while kill -0 "$pid" 2>/dev/null; do
    if ((SECONDS > deadline)) || grep -q 'internal error' "$work/probe"; then kill -KILL "$pid"; fi
    sleep 0.1
  done
  wait "$pid" && status=0
  return "$status"
}

choose_accel() {
  case ${CORACLE_VM_ACCEL:-auto} in
    auto) if kvm_works "$@"; then echo kvm; else echo tcg; fi ;;
    kvm | tcg) echo "$CORACLE_VM_ACCEL" ;;
    *) usage_error "CORACLE_VM_ACCEL is kvm, tcg or auto, not '$CORACLE_VM_ACCEL'" ;;
  esac
}

# --- the disk with the tests ----------------------------------------------------------------------------------------------

# "NAME FOLDER COMMAND..." for each chosen test, on a machine of the kind $1.
chosen_tests() {
  local accel=$1 name rest
  grep -vE '^(#|$)' "$VM_SOURCE/tests${SYSTEMD:+.systemd}" | while read -r name rest; do
    [[ $name != *+ || -z $SHORT || $accel != tcg ]] || continue
    name=${name%+}
    ((${#NAMES[@]} == 0)) || [[ " ${NAMES[*]} " == *" $name "* ]] || continue
    echo "$name $rest"
  done
}

# "TARGET EXECUTABLE" of the test targets that the list names.
build_tests() {
  (cd "$TESTBED_CHECKOUT" &&
    cargo test --locked --no-run -p coracle-oci -p coracle-shim --lib --bins --test '*' --message-format=json) |
    jq -r 'select(.executable and .profile.test)
      | "\(.package_id | sub(".*/(?<room>[a-z]+)#.*"; "\(.room)")):\(.target.name) \(.executable)"'
}

# Copies files of the checkout, at their paths within it.
add_files() {
  local tree=$1
  shift
  (cd "$TESTBED_CHECKOUT" && cp -a --parents "$@" "$tree/checkout")
}

add_stripped() {
  local tree=$1 file
  shift
  for file in "$@"; do
    mkdir -p "$tree/checkout/$(dirname "$file")"
    strip -o "$tree/checkout/$file" "$TESTBED_CHECKOUT/$file"
  done
}

# Makes the disk of the tests; `@ROOM:TARGET` becomes the executable that cargo built for it. Their names are kept in `list`.
make_tests_disk() {
  local work=$1 accel=$2 tree=$1/tree target executable list images
  mkdir -p "$tree/checkout"
  list=$(chosen_tests "$accel")
  [[ -n $list ]] || usage_error "no such test: ${NAMES[*]}"
  while read -r target executable; do
    executable=${executable#"$TESTBED_CHECKOUT/"}
    [[ $list == *"@$target"* ]] || continue
    add_stripped "$tree" "$executable"
    list=${list//"@$target"/"$TESTBED_CHECKOUT/$executable"}
  done < <(build_tests)
  [[ $list != *@* ]] || die "a test names a target that cargo does not have: $list"
  echo "$list" | tee "$work/list" >"$tree/tests"
  add_stripped "$tree" target/debug/{containerd-shim-wasm-v1,coracle}
  mapfile -t images < <(cd "$TESTBED_CHECKOUT" && find test-images/build -maxdepth 1 -type f ! -name 'thirdparty-*')
  add_files "$tree" deploy/testbed shim/tests oci/tests "${images[@]}"
  install -m 755 "$VM_SOURCE/init" "$tree/init"
  printf '%s=%q\n' CHECKOUT "$TESTBED_CHECKOUT" >"$tree/settings"
  mkfs.ext4 -q -O ^has_journal -d "$tree" "$work/tests" "$(($(du -sm "$tree" | cut -f1) + 200))M" >/dev/null
  rm -r "$tree"
}

# --- the machine ----------------------------------------------------------------------------------------------------------

# Writes the first serial line (kernel) to console, the second one (tests) to results.
boot() {
  local work=$1 disk=$2 accel=$3 limit=${CORACLE_VM_TIMEOUT:-} cpu=host options='' processors=2
  if [[ $accel == tcg ]]; then
    # In the emulation of QEMU 7.2 the kernel's cmpxchg16b may damage the flags, and a processor may run into code that another
    # one has just patched. Linux has another way, and one processor needs no patience with others.
    cpu=max options=clearcpuid=cx16 processors=1
  fi
  [[ -n $limit ]] || limit=$([[ $accel == kvm ]] && echo 1200 || echo 6000)
  TMPDIR=$work timeout -s KILL "$limit" qemu-system-x86_64 \
    -accel "$accel" -cpu "$cpu" -smp "$processors" -m "$MEMORY" "${BARE[@]}" \
    -serial "file:$work/console" -serial "file:$work/results" \
    -drive "file=$disk/root,format=raw,if=virtio,snapshot=on" \
    -drive "file=$work/tests,format=raw,if=virtio,snapshot=on" \
    -kernel "$disk/kernel" -initrd "$disk/initrd" \
    -append "console=ttyS0 quiet panic=-1 $options VM_INIT=$(first_process)"
}

# systemd takes the rest of the kernel's words from /proc/cmdline.
first_process() {
  if [[ -n $SYSTEMD ]]; then echo /usr/lib/systemd/systemd systemd.unit=tests.service; else echo /vm/init; fi
}

# --- results --------------------------------------------------------------------------------------------------------------

# Prints the table. Fails unless each test of the list (the first file) ended with status 0 and some cases passed in it.
judge() {
  awk '
    FNR == NR { names[++count] = $1; next }
    $1 == "@@" && $2 == "begin" { now = $3; next }
    $1 == "@@" && $2 == "end"   { ended[$3] = 1; status[$3] = $4; seconds[$3] = $5; next }
    $1 == "@@" && $2 == "done"  { done = 1; next }
    /^test result: / { for (i = 2; i < NF; i++) if ($(i + 1) ~ /^(passed|failed|ignored);?$/) sum[now, substr($(i + 1), 1, 6)] += $i }
    END {
      printf "%-14s %7s %7s %8s %8s  %s\n", "test", "passed", "failed", "ignored", "seconds", "result"
      bad = !done
      for (i = 1; i <= count; i++) {
        n = names[i]
        result = !ended[n] ? "NOT ENDED" : status[n] != 0 ? "FAILED (" status[n] ")" : !sum[n, "passed"] ? "NOTHING RAN" : "ok"
        if (result != "ok") bad = 1
        printf "%-14s %7d %7d %8d %8s  %s\n", n, sum[n, "passed"], sum[n, "failed"], sum[n, "ignore"], seconds[n], result
      }
      exit bad
    }' "$1" "$2"
}

main() {
  parse_arguments "$@"
  require_root
  install_qemu
  local disk accel status=0 begun=$SECONDS
  disk=$("$VM_SOURCE/disk.sh")
  WORK=$(mktemp -d /var/tmp/coracle-vm.XXXXXX)
  trap 'rm -rf -- "$WORK"' EXIT
  accel=$(choose_accel "$disk" "$WORK")
  make_tests_disk "$WORK" "$accel"
  say "virtual machine: cgroup v2, $accel; disks ready after $((SECONDS - begun)) s"
  boot "$WORK" "$disk" "$accel" || say "the machine ended with status $?"
  touch "$WORK/results"
  judge "$WORK/list" "$WORK/results" || status=1
  if [[ -n $KEEP ]]; then
    mkdir -p "$KEEP"
    cp "$WORK"/{console,results} "$KEEP/"
  fi
  if ((status)); then
    tail -n 20 "$WORK/console" >&2
    grep -vE '^test .* \.\.\. ok\r?$' "$WORK/results" | tail -n 200 >&2
  fi
  say "virtual machine: $((SECONDS - begun)) s in all"
  return "$status"
}

main "$@"
