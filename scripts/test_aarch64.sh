#!/usr/bin/env bash
# Runs the 64-bit ARM wheel of a folder with an arm64 Python, under qemu: as a Cortex-A72 (ARMv8.0, Raspberry Pi 4),
# where qemu stops at any instruction that such a core lacks, and as everything that qemu knows.
#
#   scripts/test_aarch64.sh dist [arguments of pytest]
#
# Needs Linux, mmdebstrap, qemu-user-static, pip, a connection to a Debian mirror and to an index of Python packages.
# The unpacked system is kept in target/arm64. It is not configured, so that nothing foreign has to run for it, and not
# entered with chroot, so that root (or sudo) is needed only to unpack it.
set -euo pipefail
cd "$(dirname "$0")/.."
dist=${1:-dist}
shift || true
python=${PYTHON:-python3}
root=${CANDLEWICK_ARM64_ROOT:-$PWD/target/arm64}
site=$PWD/target/arm64-site

if [ ! -e "$root/usr/bin/python3" ]; then
    as_root=()
    [ "$(id -u)" = 0 ] || as_root=(sudo)
    "${as_root[@]}" mmdebstrap --architectures=arm64 --variant=extract --include=python3 trixie "$root"
    # Unconfigured, it lacks the links that a merged /usr has.
    for folder in bin lib; do [ -e "$root/$folder" ] || "${as_root[@]}" ln -s "usr/$folder" "$root/$folder"; done
fi
version=$(readlink "$root/usr/bin/python3")
version=${version#python}

# pip as it would choose on that machine, run on this one.
install() {
    "$python" -m pip install --quiet --target "$site" --python-version "$version" --implementation cp \
        --abi "cp${version/./}" --abi abi3 --abi none --only-binary=:all: --platform manylinux_2_28_aarch64 \
        --platform manylinux_2_17_aarch64 --platform manylinux2014_aarch64 --platform any "$@"
}
if [ ! -d "$site/pytest" ]; then
    install --group run-tests
fi
rm -rf "$site"/candlewick* "$site"/bin/candlewick
install --no-index --find-links "$dist" --no-deps candlewick

# The tests start programs as `sys.executable`, which is the name that Python was started by: a script that runs qemu, so
# that nothing depends on the system knowing foreign programs (binfmt_misc).
emulated=$PWD/target/arm64-python
printf '#!/bin/sh\nexec qemu-aarch64-static -0 "$0" "%s" "$@"\n' "$root/usr/bin/python3" > "$emulated"
chmod +x "$emulated"

# The core: what computes, how streams behave, what is refused. An emulator has no part in tests that judge time or memory,
# nor in those of the tools; and Candle's waiting threads leave it nothing to run the working one with.
core=(tests/test_bad_requests.py tests/test_golden.py tests/test_laws.py tests/test_native.py tests/test_speculation.py
    tests/test_split.py tests/test_stream.py tests/test_templates.py tests/test_threads.py tests/test_tokenizer.py
    tests/test_types.py -k "not law_3 and not fork and not candle_fixes")
[ $# -gt 0 ] || set -- "${core[@]}"

for cpu in ${CANDLEWICK_QEMU_CPUS:-cortex-a72 max,pauth-impdef=on}; do
    echo "== $cpu"
    run() {
        QEMU_CPU=$cpu QEMU_LD_PREFIX=$root PYTHONHOME=$root/usr PYTHONPATH=$site CANDLE_NUM_THREADS=1 "$emulated" "$@"
    }
    run -c 'import platform, candlewick
print(platform.machine(), candlewick._native.__file__)
print(candlewick.Generator("demo").generate("Write a haiku about fog", seed=3))'
    run -m pytest -p no:cacheprovider --override-ini timeout=1200 "$@"
done
