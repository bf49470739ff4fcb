#!/usr/bin/env bash
# Runs the x86-64 wheel of a folder under qemu as CPUs that lack what most have: the first x86-64 (SSE2 and no more), one
# without AVX (2008), and one with AVX2 (2013). qemu stops at an instruction that the CPU lacks.
#
#   scripts/test_baseline.sh dist
set -euo pipefail
dist=$1
python=${PYTHON:-python3}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"$python" -m pip install --quiet --no-index --find-links "$dist" --target "$scratch" candlewick
real=$("$python" -c 'import os, sys; print(os.path.realpath(sys.executable))')
for cpu in qemu64 Nehalem Haswell; do
    echo "== $cpu"
    # qemu says for each feature of a model that it cannot give: that is not an error here.
    PYTHONPATH=$scratch CANDLE_NUM_THREADS=1 qemu-x86_64-static -cpu "$cpu" "$real" -c '
import candlewick
print(*candlewick._native.cpu())
print(candlewick.Generator("demo").generate("Write a haiku about fog", seed=3))
' 2> >(grep -v "TCG doesn.t support" >&2)
done
