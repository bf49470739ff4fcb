"""How many threads to compute with: each model's own for the native engine, the process's for Candle."""

from __future__ import annotations

import logging
import operator
import os
import threading

from candlewick import _native
from candlewick.errors import InvalidRequestError

_VARIABLE = "CANDLE_NUM_THREADS"
# More than any CPU that this could run well on.
_MOST = 512
_lock = threading.Lock()
_started: int | None = None


def number(n_threads: int | None) -> int:
    """``n_threads`` checked, or as many as this process may use.

    Raises:
        TypeError: It is no number.
        InvalidRequestError: It is below 1 or absurdly large.
    """
    if n_threads is not None:
        if isinstance(n_threads, bool) or not hasattr(n_threads, "__index__"):
            raise TypeError(f"n_threads must be int or None, not {type(n_threads).__name__}")
        n_threads = operator.index(n_threads)
        if not 1 <= n_threads <= _MOST:
            raise InvalidRequestError(
                f"n_threads is {n_threads}, expected 1 to {_MOST} (or None: all this process may use)"
            )
    wanted = n_threads or usable_cpus()
    if wanted > usable_cpus():
        logging.getLogger(__name__).warning(
            "%d threads on %d CPUs wait for each other more than they compute", wanted, usable_cpus()
        )
    return wanted


def start_candle(n_threads: int | None) -> int:
    """Starts Candle's pool with ``n_threads``, or as many as this process may use; returns their number.

    Raises:
        InvalidRequestError: The pool has another size already.
    """
    global _started
    with _lock:
        if _started is None:
            _started = _start(n_threads)
        elif n_threads is not None and n_threads != _started:
            raise InvalidRequestError(
                f"n_threads is {n_threads}, but this process computes with {_started} since its first Generator, and "
                "the candle engine has one pool for all: leave n_threads out, or start another process"
            )
        return _started


def _start(n_threads: int | None) -> int:
    wanted = n_threads or _planned()
    # Candle reads the variable once, when the pool starts, and has no other way to be told.
    before = os.environ.get(_VARIABLE)
    os.environ[_VARIABLE] = str(wanted)
    try:
        return _native.start_threads()
    finally:
        if before is None:
            del os.environ[_VARIABLE]
        else:
            os.environ[_VARIABLE] = before


def _planned() -> int:
    asked = os.environ.get(_VARIABLE, "")
    return min(int(asked), _MOST) if asked.isdecimal() and int(asked) > 0 else usable_cpus()


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
