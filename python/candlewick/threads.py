"""How many threads Candle computes with: fixed for the process by the first model."""

from __future__ import annotations

import os
import threading

from candlewick import _native
from candlewick.errors import InvalidRequestError

_VARIABLE = "CANDLE_NUM_THREADS"
_lock = threading.Lock()
_started: int | None = None


def start(n_threads: int | None) -> int:
    """Starts the pool with ``n_threads``, or as many as this process may use; returns their number.

    Raises:
        InvalidRequestError: The pool has another size already.
    """
    global _started
    if n_threads is not None:
        if isinstance(n_threads, bool) or not isinstance(n_threads, int):
            raise TypeError(f"n_threads must be int or None, not {type(n_threads).__name__}")
        if not 1 <= n_threads <= 1024:
            raise InvalidRequestError(
                f"n_threads is {n_threads}, expected 1 to 1024 (or None: all this process may use)"
            )
    with _lock:
        if _started is None:
            _started = _start(n_threads)
        elif n_threads is not None and n_threads != _started:
            raise InvalidRequestError(
                f"n_threads is {n_threads}, but the first model of this process started {_started} threads, and the "
                "candle engine has one pool for all: leave n_threads out, or start another process"
            )
        return _started


def _start(n_threads: int | None) -> int:
    # Candle reads the variable once, when the pool starts, and has no other way to be told.
    before = os.environ.get(_VARIABLE)
    if n_threads is None and before is not None:
        return _native.start_threads()
    os.environ[_VARIABLE] = str(n_threads or usable_cpus())
    try:
        return _native.start_threads()
    finally:
        if before is None:
            del os.environ[_VARIABLE]
        else:
            os.environ[_VARIABLE] = before


def usable_cpus() -> int:
    """CPUs this process may use: affinity and the container's quota counted."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        with open("/sys/fs/cgroup/cpu.max", encoding="ascii") as file:
            quota, period = file.read().split()
        cpus = min(cpus, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        pass
    return cpus
