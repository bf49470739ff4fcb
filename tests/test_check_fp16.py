"""`scripts/check_fp16.py`: half-precision arithmetic that slips into an ARM wheel is found, in real machine code."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "check_fp16.py"
# Binutils for 64-bit ARM: on such a machine the ordinary ones.
TOOLS = "" if platform.machine() == "aarch64" else "aarch64-linux-gnu-"

if not SCRIPT.is_file():
    pytest.skip("the scripts are not in the sdist", allow_module_level=True)
if sys.platform != "linux" or not all(shutil.which(f"{TOOLS}{tool}") for tool in ("as", "ld", "nm", "objdump")):
    pytest.skip("needs Linux and binutils for 64-bit ARM", allow_module_level=True)

# What every ARMv8.0 has: conversions, loads of 16 bits, integer lanes, and arithmetic of single precision.
BASELINE = """
    fcvt s0, h1
    fcvt h0, s1
    fcvtl v0.4s, v1.4h
    fcvtn2 v0.8h, v1.4s
    ldr h0, [x0]
    add v0.8h, v1.8h, v2.8h
    mul v0.8h, v1.8h, v2.h[3]
    fmla v0.4s, v1.4s, v2.4s
    fmov s0, w0
"""
HALF = [
    "fadd v0.8h, v1.8h, v2.8h",
    "fmla v0.4h, v1.4h, v2.h[3]",
    "fmul h0, h1, h2",
    "fmlal v0.4s, v1.4h, v2.4h",
    "fcvtzs w0, h0",
    "fcvtzs v0.8h, v1.8h",
    "scvtf h0, w0",
    "fmov h0, w0",
    "fcmp h0, #0.0",
]


def check(folder: Path, functions: dict[str, str], filler: int = 110_000) -> subprocess.CompletedProcess[str]:
    """The script's answer for a wheel with these functions, after one that does nothing."""
    source, module, wheel = folder / "module.s", folder / "module.so", folder / "some.whl"
    code = "".join(f".globl {name}\n{name}: {body}\n ret\n" for name, body in functions.items())
    nothing = f".globl nothing\nnothing: .rept {filler}\n nop\n .endr\n"
    source.write_text(f".arch armv8.2-a+fp16+fp16fml\n.text\n{nothing}{code}", encoding="ascii")
    subprocess.run([f"{TOOLS}as", source, "-o", folder / "module.o"], check=True)
    subprocess.run([f"{TOOLS}ld", "-shared", folder / "module.o", "-o", module], check=True)
    with zipfile.ZipFile(wheel, "w") as made:
        made.write(module, "candlewick/_native.abi3.so")
    command = [sys.executable, SCRIPT, wheel, module]
    environment = {**os.environ, "AARCH64_TOOLS": TOOLS}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)


def test_what_every_core_has_is_accepted(tmp_path: Path) -> None:
    done = check(tmp_path, {"baseline": BASELINE})
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 need fp16" in done.stdout


def test_each_instruction_is_found_and_its_function_named(tmp_path: Path) -> None:
    functions = {f"half_{n}": instruction for n, instruction in enumerate(HALF)}
    done = check(tmp_path, {"before": BASELINE, **functions, "after": BASELINE})
    assert done.returncode == 1, done.stdout + done.stderr
    *found, _ = done.stdout.splitlines()
    assert [line.split() for line in found] == [["1", "NOT", "DISPATCHED", name] for name in functions]


@pytest.mark.parametrize(
    ("path", "dispatched"),
    [
        (["half", "binary16", "arch", "aarch64", "add_f16_fp16"], True),
        (["gemm_f16", "microkernel", "neonfp16", "f16", "x1x1"], True),
        (["gemm_common", "simd", "aarch64", "fmaq_f16"], True),
        (["half", "binary16", "arch", "add_f16"], False),
        (["gemm_f16", "microkernel", "neon", "f16", "x1x1"], False),
        (["candlewick", "kernels", "aarch64", "neon", "add_f16_fp16"], False),
    ],
)
def test_only_what_asks_the_cpu_first_is_excepted(tmp_path: Path, path: list[str], dispatched: bool) -> None:
    mangled = "".join(f"{len(part)}{part}" for part in [*path, f"h{0x1234567890ABCDEF:016x}"])
    done = check(tmp_path, {f"_ZN{mangled}E": "fadd h0, h1, h2"})
    assert "::".join(path) in done.stdout
    assert done.returncode == (0 if dispatched else 1), done.stdout + done.stderr


def test_next_to_nothing_is_no_proof(tmp_path: Path) -> None:
    assert check(tmp_path, {"baseline": BASELINE}, filler=10).returncode == 1
