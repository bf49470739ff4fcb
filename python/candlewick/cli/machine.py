"""What this process runs on, as far as the system tells."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

from candlewick import threads


def cpu() -> str:
    """The CPU's name and how many of it this process may use, such as ``"AMD EPYC 7763, 2 CPUs"``."""
    n = threads.usable_cpus()
    return f"{_cpu_name()}, {n} CPU{'s' if n > 1 else ''}"


def _cpu_name() -> str:
    for name in (_from_linux, _from_macos, platform.processor):
        try:
            found = name()
        except (OSError, subprocess.SubprocessError):
            continue
        if found:
            return " ".join(found.split())
    return platform.machine()


def _from_linux() -> str:
    # ARM has no names there, but numbers.
    facts = dict(_fields("/proc/cpuinfo"))
    if "model name" in facts:
        return facts["model name"]
    if "CPU part" in facts:
        return f"{platform.machine()}, implementer {facts.get('CPU implementer', '?')}, part {facts['CPU part']}"
    return ""


def _from_macos() -> str:
    if sys.platform != "darwin":
        return ""
    command = ["sysctl", "-n", "machdep.cpu.brand_string"]
    return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout


def peak_memory() -> int | None:
    """The most bytes that this process ever had in memory, or ``None`` where the system does not tell."""
    try:
        # The figure of getrusage is on Linux that of whoever started this process, if it was larger.
        return int(dict(_fields("/proc/self/status"))["VmHWM"].split()[0]) * 1024
    except (OSError, KeyError):
        pass
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def huge_page_memory() -> int:
    """Bytes of this process that lie in huge pages."""
    try:
        facts = dict(_fields("/proc/self/smaps_rollup"))
    except OSError:
        return 0
    return sum(int(facts.get(name, "0").split()[0]) for name in ("AnonHugePages", "FilePmdMapped")) * 1024


def load() -> float | None:
    """How many threads of the whole machine ran or wanted to, in the last minute."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def _fields(path: str) -> list[tuple[str, str]]:
    lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    return [(name.strip(), value.strip()) for name, value in pairs]
