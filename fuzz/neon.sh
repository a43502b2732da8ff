#!/usr/bin/env bash
# The kernels for ARM, on another machine: cross-compiled, and run in an emulator.
#
#   fuzz/neon.sh [inputs [seed]]
#
# CROSS_CC chooses the gcc, QEMU the emulator, SYSROOT where the libraries for ARM are. What is
# built is in .cache/neon.
set -euo pipefail
cd "$(dirname "$0")/.."
cc=${CROSS_CC:-aarch64-linux-gnu-gcc}
qemu=${QEMU:-qemu-aarch64-static}
sysroot=${SYSROOT:-/usr/aarch64-linux-gnu}
inputs=${1:-100000}
seed=${2:-7692}
work=$PWD/.cache/neon

missing=
command -v "$cc" >/dev/null || missing+=" gcc-aarch64-linux-gnu"
command -v "$qemu" >/dev/null || missing+=" qemu-user-static"
[ -e "$sysroot/lib/ld-linux-aarch64.so.1" ] || missing+=" libc6-dev-arm64-cross"
if [ -n "$missing" ]; then
    echo "what is missing to run ARM code (Debian): apt install$missing" >&2
    exit 1
fi

# The program's arguments, then the options it is compiled with
run() {
    local arguments=$1
    shift
    printf '%s: ' "$*"
    "$cc" -DFASTWS_STANDALONE -Wall -Wextra -Werror -Isrc/fastws/_c/kernels "$@" \
        fuzz/kernels.c -o "$work/kernels"
    # shellcheck disable=SC2086
    "$qemu" -L "$sysroot" "$work/kernels" $arguments | tee "$work/log"
    grep -q ' neon ' "$work/log" || { echo "the kernels for ARM were not compiled" >&2; exit 1; }
}

mkdir -p "$work"
run "$inputs $seed" -O2
run "$inputs $seed" -O3
# An emulated AddressSanitizer is slow, and cannot look for leaks.
export ASAN_OPTIONS=detect_leaks=0
run "$((inputs / 5)) $((seed + 1))" -g -O1 -fsanitize=address,undefined \
    -fno-sanitize-recover=undefined
