#!/usr/bin/env bash
# Builds the Rust tests of the kernels for 64-bit ARM and runs them under qemu: as a Cortex-A72 (ARMv8.0, Raspberry Pi
# 4), where qemu stops at any instruction that such a core lacks, and as everything that qemu knows. Then the whole
# engine must give the ids and logits that x86-64 gave (tests/tiers).
#
# For Debian and its kin, on x86-64; on 64-bit ARM itself, `cargo test` does the same without qemu.
set -euo pipefail
cd "$(dirname "$0")/.."
target=aarch64-unknown-linux-gnu

missing=()
command -v qemu-aarch64-static > /dev/null || missing+=(qemu-user-static)
command -v aarch64-linux-gnu-gcc > /dev/null || missing+=(gcc-aarch64-linux-gnu)
# With arm64's own C library installed, its loader must not meet that of the cross compiler: threads would hang.
if [ ! -e /lib/ld-linux-aarch64.so.1 ]; then
    export QEMU_LD_PREFIX=/usr/aarch64-linux-gnu
    [ -e $QEMU_LD_PREFIX/lib/libc.so.6 ] || missing+=(libc6-dev-arm64-cross)
fi
# A Rust with that target's library: the one in use, or else the system's.
has_target() { [ -d "$("$1" --print target-libdir --target $target 2> /dev/null)" ]; }
cargo=cargo
if ! has_target rustc; then
    if has_target /usr/bin/rustc; then
        cargo=/usr/bin/cargo
        export RUSTC=/usr/bin/rustc
    else
        # Debian's Rust that is new enough.
        missing+=(rustc-web cargo-web libstd-rust-web-dev:arm64)
    fi
fi
if [ ${#missing[@]} -gt 0 ]; then
    echo "missing here: apt-get install ${missing[*]}" >&2
    echo "(:arm64 needs \`dpkg --add-architecture arm64\` first; instead of the Rust packages, with rustup: \`rustup target add $target\`)" >&2
    exit 1
fi

export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER=qemu-aarch64-static
# For tests that start themselves again, where binfmt_misc is not set up.
export CANDLEWICK_TEST_RUNNER=qemu-aarch64-static
# As wheels are built: for every ARMv8.0.
export RUSTFLAGS="-C target-cpu=generic"
# Candle's threads wait for each other without pause, and make no progress under qemu.
export CANDLE_NUM_THREADS=1
run() { "$cargo" test --release --locked --target $target "$@"; }
run --lib --test tiers --no-run
for cpu in ${CANDLEWICK_QEMU_CPUS:-cortex-a72 max,pauth-impdef=on}; do
    case $cpu in
        cortex-a72) tiers=neon ;;
        max*) tiers=neon,dotprod,i8mm ;;
        *) tiers= ;;
    esac
    echo "== $cpu"
    QEMU_CPU=$cpu CANDLEWICK_TEST_TIERS=$tiers run --lib -- kernels::
    QEMU_CPU=$cpu CANDLEWICK_TEST_TIERS=$tiers run --test tiers
done
