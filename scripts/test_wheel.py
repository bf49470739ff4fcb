"""Installs a wheel where nothing else is, with no index to fall back on, and runs the tests against it.

    python3.13 scripts/test_wheel.py dist                 # the environment is made with the Python that runs this
    python3.14t scripts/test_wheel.py dist -- --parallel-threads=4 tests/test_laws.py

What follows `--` goes to pytest. `CANDLEWICK_ISA` and other variables reach the tests.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import venv
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parent.parent
# The installed package must be the one that is tested: its sources lie in python/, which nothing puts on the path.
WHERE = """
import sys, candlewick
from candlewick import _native
print(f"Python {sys.version}\\n{_native.__file__}")
assert "site-packages" in candlewick.__file__ and candlewick.__file__.startswith(sys.prefix), candlewick.__file__
if not getattr(sys, "_is_gil_enabled", lambda: True)():
    print("the GIL is off")
from candlewick import Generator
print(Generator("demo").generate("Write a haiku about fog", seed=3))
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dist", type=Path, help="the folder with the wheels; pip takes the one that fits")
    parser.add_argument("--sdist", action="store_true", help="build the source distribution instead: takes minutes")
    parser.add_argument("--extra", action="append", default=[], help="a further package that pytest needs")
    parser.add_argument("pytest", nargs="*", default=["tests"], help="arguments of pytest; all tests without them")
    arguments = parser.parse_args()

    with TemporaryDirectory() as scratch:
        venv.create(scratch, with_pip=True)
        python = Path(scratch) / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

        def run(*command: str | Path, cwd: Path | str = scratch) -> None:
            print("+", *command, flush=True)
            subprocess.run([python, *command], check=True, cwd=cwd)

        wheels = arguments.dist.resolve()
        if arguments.sdist:
            # The index is needed for the build backend, maturin; which candlewick is meant is said by its path.
            (source,) = wheels.glob("candlewick-*.tar.gz")
            run("-m", "pip", "install", "--no-binary", "candlewick", "--no-cache-dir", source)
        else:
            run("-m", "pip", "install", "--no-index", "--no-cache-dir", "--find-links", wheels, "candlewick")
        run("-c", WHERE)
        # `--group` came with pip 25.1.
        run("-m", "pip", "install", "--quiet", "--upgrade", "pip>=25.1")
        run("-m", "pip", "install", "--quiet", "--group", f"{ROOT / 'pyproject.toml'}:run-tests", *arguments.extra)
        run("-m", "pytest", "-p", "no:cacheprovider", *arguments.pytest, cwd=ROOT)
        # The examples in the docstrings, in the package as it was installed.
        run("-m", "pytest", "-p", "no:cacheprovider", "--quiet", "--doctest-modules", "--pyargs", "candlewick")
    return 0


if __name__ == "__main__":
    sys.exit(main())
