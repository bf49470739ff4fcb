"""`import candlewick` is quick, and does nothing but define things: no threads, no files, no network."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

# Imports of the standard library that take long and that are needed only by some calls.
SLOW = ["asyncio", "concurrent.futures.thread", "http", "importlib.resources", "shutil", "socket", "ssl", "subprocess"]

WATCH = """
import json, os, sys, threading

events, modules = [], set(sys.modules)
SUFFIXES = (".py", ".pyc", ".so", ".pyd", ".dll")

def hook(event, args):
    if event == "open" and not str(args[0]).endswith(SUFFIXES):
        events.append([event, str(args[0])])
    elif event.startswith(("socket.", "_thread.start", "subprocess.", "os.fork", "os.exec", "urllib.")):
        events.append([event, str(args)])

def kernel(what):
    folder = f"/proc/self/{what}"
    return sorted(os.listdir(folder)) if os.path.isdir(folder) else None

before = kernel("fd"), kernel("task")
sys.addaudithook(hook)
import candlewick
after = kernel("fd"), kernel("task")
print(json.dumps({
    "events": events, "before": before, "after": after, "threads": threading.active_count(),
    "modules": sorted(set(sys.modules) - modules), "environ": dict(os.environ),
}))
"""


@pytest.fixture(scope="module")
def seen() -> dict[str, object]:
    # -S: what a `.pth` file of the environment imports is not candlewick's doing; it is found by its path.
    path = os.pathsep.join(sys.path)
    environment = {**os.environ, "PYTHONPATH": path}
    command = [sys.executable, "-S", "-c", WATCH]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=True)
    return {**json.loads(done.stdout), "given": environment}


def test_no_threads(seen: dict[str, object]) -> None:
    assert seen["threads"] == 1


def test_no_files_and_no_network(seen: dict[str, object]) -> None:
    assert seen["events"] == []


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="needs Linux's /proc")
def test_the_kernel_sees_no_new_thread_and_no_open_file(seen: dict[str, object]) -> None:
    assert seen["before"] == seen["after"]


def test_the_environment_is_left_as_it_was(seen: dict[str, object]) -> None:
    given = seen["given"]
    assert isinstance(given, dict) and isinstance(seen["environ"], dict)
    # Python itself sets LC_CTYPE in the C locale.
    assert {k: v for k, v in seen["environ"].items() if k != "LC_CTYPE"} == {
        k: v for k, v in given.items() if k != "LC_CTYPE"
    }


def test_nothing_slow_is_imported(seen: dict[str, object]) -> None:
    modules = seen["modules"]
    assert isinstance(modules, list)
    assert [name for name in SLOW if name in modules] == []
