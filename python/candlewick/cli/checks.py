"""What `candlewick doctor` looks at, one function each."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from candlewick import Generator, __version__, _native, threads
from candlewick.cli import cached, golden, machine
from candlewick.cli.size import readable
from candlewick.errors import Error

if TYPE_CHECKING:
    from collections.abc import Callable

OK, NOTE, BROKEN = "ok", "note", "broken"

# Phi-3-mini, the model that is taken when none is named: its matrices in 4 bits, and its window of keys and values.
_PHI3_WEIGHTS, _PHI3_CONTEXT = 2_340_000_000, 910_000_000


class Finding(NamedTuple):
    """What a check found."""

    name: str
    status: str
    says: list[str]
    facts: dict[str, Any]
    advice: list[str]


def find(check: Callable[[], Finding]) -> Finding:
    """What `check` finds; an error is a finding too."""
    try:
        return check()
    except (Error, OSError) as error:
        return Finding(check.__name__, BROKEN, [str(error)], {"error": str(error)}, [])


def package() -> Finding:
    """Versions."""
    facts = {
        "candlewick": __version__,
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "platform": platform.platform(),
        "machine": platform.machine(),
    }
    says = f"candlewick {__version__}, {facts['implementation']} {facts['python']}, {facts['platform']}"
    return Finding("package", OK, [says], facts, [])


def cpu() -> Finding:
    """Instruction sets, and the tier chosen."""
    features, tier = _native.cpu()
    tiers = _native.tiers()
    forced = os.environ.get("CANDLEWICK_ISA") or None
    name = machine.cpu()
    facts = {"name": name, "features": features, "tier": tier, "tiers": tiers, "forced": forced}
    says = [name, f"has {' '.join(features) or 'no instruction set that is of use'}"]
    others = ", ".join(tiers)
    if forced is None:
        says.append(f"tier {tier}; CANDLEWICK_ISA may name {others}")
    else:
        says.append(f"tier {tier}, as CANDLEWICK_ISA says; this CPU has {others}")
    slower = forced is not None and tier != tiers[-1]
    advice = [f"unset CANDLEWICK_ISA: {tiers[-1]} gives the same bits, sooner"] if slower else []
    return Finding("cpu", NOTE if slower else OK, says, facts, advice)


def thread() -> Finding:
    """Threads, and what limits them."""
    n, n_cpus = threads.usable_cpus(), os.cpu_count() or 1
    load = machine.load()
    facts = {"usable": n, "cpus": n_cpus, "load": load}
    says = f"{n} of {n_cpus} CPUs may be used" + ("" if n == n_cpus else ", by affinity or the container's quota")
    busy = load is not None and load > 0.5 * n
    if load is not None:
        says += f"; {load:.1f} threads ran in the last minute"
    advice = ["other programs compute here: expect less speed while they do"] if busy else []
    return Finding("threads", NOTE if busy else OK, [says], facts, advice)


def memory() -> Finding:
    """What is available, and which models fit."""
    available = _native.available_memory()
    if available is None:
        says = ["this system does not tell how much memory is available: nothing is refused beforehand"]
        return Finding("memory", NOTE, says, {"available": None}, [])
    needed = _PHI3_WEIGHTS + _PHI3_CONTEXT
    facts = {"available": available, "phi3_mini_needs": needed}
    says, advice = [f"{readable(available)} are available to this process"], []
    what = f"Phi-3-mini, the default model, needs {readable(needed)} with its whole context"
    if needed <= available:
        says.append(f"{what}: it fits")
        return Finding("memory", OK, says, facts, [])
    says.append(f"{what}: it does not fit")
    if _PHI3_WEIGHTS < available:
        advice.append(f'use a smaller n_ctx or kv_type="q8_0": the weights alone take {readable(_PHI3_WEIGHTS)}')
    else:
        advice.append("free some memory, raise the limit of the container or of ulimit -v, or use a smaller model")
    return Finding("memory", NOTE, says, facts, advice)


def cache() -> Finding:
    """Where fetched models are kept, and what is there."""
    folder = Path(_native.cache_dir())
    there = next(path for path in (folder, *folder.parents) if path.exists())
    models = cached.scan(folder)
    unfinished = sorted(folder.glob("models--*/blobs/*.incomplete"))
    half = [
        (str(path.relative_to(folder)), path.stat().st_size, time.time() - path.stat().st_mtime) for path in unfinished
    ]
    n_bytes = sum(model.n_bytes for model in models)
    free = shutil.disk_usage(there).free
    writable = _is_writable(there)
    facts: dict[str, Any] = {
        "folder": _short(folder),
        "exists": folder.exists(),
        "writable": writable,
        "free_bytes": free,
        "bytes": n_bytes,
        "models": {f"{model.repo}/{model.filename}": _fits(model.path) for model in models},
        "half_written": [{"file": name, "bytes": size, "age_s": round(age)} for name, size, age in half],
    }
    count = f"{len(models)} model{'' if len(models) == 1 else 's'}, {readable(n_bytes)}" if models else "no models yet"
    says = [
        f"{_short(folder)}: {count}, {'can be written to' if writable else 'cannot be written to'}, "
        f"{readable(free)} free on the disk"
    ]
    advice = []
    says += [f"{name}: {fits}" for name, fits in facts["models"].items()]
    for name, size, age in half:
        says.append(f"half-written since {_ago(age)}: {name}, {readable(size)}")
    if half:
        advice.append("the next fetch of that model goes on from there; delete it if you do not want the model")
    if not writable:
        advice.append("models that are there can be used, none can be fetched: set HF_HUB_CACHE or give cache_dir=")
    return Finding("cache", OK if writable and not half else NOTE, says, facts, advice)


def _fits(path: str) -> str:
    try:
        estimate = Generator.estimate(path)
    except (Error, OSError) as error:
        return str(error)
    needs = f"needs {readable(estimate.needed_bytes)}"
    if estimate.fits is False:
        return f"{needs}, does not fit; choose {', or '.join(estimate.advice)}"
    return f"{needs}, fits" if estimate.fits else needs


def hub() -> Finding:
    """What would be asked, and with what."""
    facts = _native.hub_settings()
    proxies = facts["proxies"]
    says = [
        f"{facts['endpoint']}, {'offline: nobody is asked' if facts['offline'] else 'asked where it is needed'}",
        f"{'a token is sent to it' if facts['token'] else 'no token'}; proxies: {', '.join(proxies) or 'none'}",
    ]
    advice = []
    if facts["offline"]:
        advice.append("unset HF_HUB_OFFLINE to fetch models")
    return Finding("hub", OK, says, facts, advice)


def results() -> Finding:
    """The demo model on each tier, against ids that are known."""
    wrong = {tier: golden.run(tier) for tier in _native.tiers()}
    says = [f"{tier}: {'the ids that are expected' if why is None else why}" for tier, why in wrong.items()]
    broken = [tier for tier, why in wrong.items() if why is not None]
    if not broken:
        says = [f"the demo model writes the ids that are expected on {', '.join(wrong)}"]
        return Finding("results", OK, says, {"tiers": wrong}, [])
    right = [tier for tier in wrong if tier not in broken]
    advice = ["please report this, with the output of candlewick doctor --json"]
    if right:
        advice.insert(0, f"set CANDLEWICK_ISA={right[-1]} until it is mended")
    return Finding("results", BROKEN, says, {"tiers": wrong}, advice)


def speed() -> Finding:
    """A short reading of the machine's limits, and of the demo model."""
    command = [sys.executable, "-m", "candlewick", "bench", "demo", "--quick", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        says = done.stderr.strip().splitlines()[-1:]
        return Finding("speed", BROKEN, ["candlewick bench demo failed", *says], {"error": says}, [])
    result = json.loads(done.stdout)
    limits, products = result["limits"], result["limits"]["products_g_per_s"]
    read = limits[f"read_{limits['pages_of_weights']}_gb_per_s"]["median"]
    prompt = result["prefill"][-1]
    decode = result["decode"][0]["tokens_per_s"]["median"]
    facts = {
        "read_gb_per_s": read,
        "products_g_per_s": products and products["median"],
        "demo_prompt_tokens_per_s": prompt["tokens_per_s"]["median"],
        "demo_of_products": prompt["of_products"],
        "demo_decode_tokens_per_s": decode,
    }
    says = [
        f"memory is read at {read:.1f} GB/s: Phi-3-mini can write {1e9 * read / _PHI3_WEIGHTS:.1f} tokens/s at most",
        f"the demo model writes {decode:,.0f} tokens/s and reads {prompt['tokens_per_s']['median']:,.0f}",
    ]
    if products:
        share = f", of which its prompts use {100 * prompt['of_products']:.0f}%"
        says.append(f"{products['median']:,.0f} G byte products/s{share}")
    return Finding("speed", OK, says, facts, [])


ALL: tuple[Callable[[], Finding], ...] = (package, cpu, thread, memory, cache, hub, results, speed)


def _is_writable(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _short(path: Path) -> str:
    """Without the name of the account, which is in most home folders."""
    try:
        return f"~/{path.relative_to(Path.home()).as_posix()}"
    except (ValueError, RuntimeError):
        return str(path)


def _ago(seconds: float) -> str:
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= size:
            n = int(seconds // size)
            return f"{n} {unit}{'' if n == 1 else 's'} ago"
    return "less than a minute ago"
