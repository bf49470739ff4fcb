"""Disassembles a 64-bit ARM wheel: half-precision arithmetic may be only in functions that are dispatched to.

    python scripts/check_fp16.py WHEEL SYMBOLS

ARMv8.0 (Raspberry Pi 4) converts between f16 and f32 and has no other half-precision instruction; one that is reached
without a check ends the process. SYMBOLS is the file that scripts/split_debug.py made of the same wheel: the wheel's
own module has no function names.
"""

from __future__ import annotations

import argparse
import bisect
import os
import re
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

# Functions that their crates call only after asking the CPU for fp16 at run time, or that only such functions call.
# Candle brings both crates; the kernels of candlewick need no fp16 on any tier.
DISPATCHED = re.compile(
    r"""
    half::binary16::arch::aarch64::\w+_fp16$    # below is_aarch64_feature_detected!("fp16") in half's arch.rs
    | gemm_f16::\w+::(f16::)?neonfp16::         # chosen by gemm_f16::gemm::f16::init_gemm_fn
    | gemm_common::simd::aarch64::NeonFp16\b    # its try_new gives one only where the CPU has fp16
    | gemm_common::simd::aarch64::\w+_f16(_fp16)?$     # called by NeonFp16 and by neonfp16 alone
    """,
    re.VERBOSE,
)

# Part of the baseline: conversion from and to half precision.
CONVERSIONS = {"fcvt", "fcvtl", "fcvtl2", "fcvtn", "fcvtn2"}
HALF_VECTOR = re.compile(r"\bv\d+\.[48]?h\b")
HALF_SCALAR = re.compile(r"(?<![\w.#])h\d+\b")
# Floating-point mnemonics; loads, stores and integer lanes of 16 bits are not meant.
FLOATING = re.compile(r"f[a-z0-9]+|[su]cvtf")


def is_half_arithmetic(mnemonic: str, operands: str) -> bool:
    """Whether an instruction needs the fp16 extension."""
    if not FLOATING.fullmatch(mnemonic) or mnemonic in CONVERSIONS:
        return False
    return bool(HALF_VECTOR.search(operands) or HALF_SCALAR.search(operands))


def instructions(module: Path, objdump: str) -> Iterable[tuple[int, str, str]]:
    """Address, mnemonic and operands."""
    command = [objdump, "--disassemble", "--no-show-raw-insn", str(module)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout
        for line in running.stdout:
            address, colon, rest = line.partition(":\t")
            if not colon:
                continue
            mnemonic, _, operands = rest.strip().partition("\t")
            yield int(address, 16), mnemonic, operands.partition("//")[0]
    if running.returncode:
        sys.exit(f"{objdump} failed")


class Functions:
    """Which function an address lies in."""

    def __init__(self, symbols: Path, nm: str) -> None:
        listing = subprocess.run(
            [nm, "--demangle", "--numeric-sort", "--defined-only", symbols], capture_output=True, text=True, check=True
        )
        found = re.findall(r"^([0-9a-f]+) [tTwW] (.+)$", listing.stdout, re.MULTILINE)
        self.addresses = [int(address, 16) for address, _ in found]
        self.names = [name for _, name in found]

    def at(self, address: int) -> str:
        index = bisect.bisect_right(self.addresses, address) - 1
        return self.names[index] if index >= 0 else "?"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("symbols", type=Path)
    arguments = parser.parse_args()
    tools = os.environ.get("AARCH64_TOOLS", "aarch64-linux-gnu-")
    functions = Functions(arguments.symbols, f"{tools}nm")
    seen, total = Counter[str](), 0
    with TemporaryDirectory() as scratch, zipfile.ZipFile(arguments.wheel) as wheel:
        (name,) = (n for n in wheel.namelist() if n.endswith(".so"))
        for address, mnemonic, operands in instructions(Path(wheel.extract(name, scratch)), f"{tools}objdump"):
            total += 1
            if is_half_arithmetic(mnemonic, operands):
                seen[functions.at(address)] += 1
    wrong = 0
    for function, count in sorted(seen.items()):
        dispatched = bool(DISPATCHED.search(function))
        wrong += not dispatched
        print(f"{count:6}  {'dispatched' if dispatched else 'NOT DISPATCHED'}  {function}")
    print(f"{total:,} instructions; {sum(seen.values())} need fp16, in {len(seen)} functions, {wrong} not dispatched")
    # Nothing disassembled would be no proof.
    return wrong != 0 or total < 100_000


if __name__ == "__main__":
    sys.exit(main())
