"""What the machine that runs the tests lacks."""

from __future__ import annotations

import platform

import pytest

from candlewick import _native

REFUSAL = "no dot-product instructions"
# ARMv8.0 (Raspberry Pi 4): Candle's engines would die there of an illegal instruction, and say so instead.
CANDLE_RUNS = platform.machine() not in ("aarch64", "arm64", "ARM64") or "dotprod" in _native.cpu()[0]

needs_candle = pytest.mark.skipif(not CANDLE_RUNS, reason=f"Candle's engines refuse this CPU: {REFUSAL}")
