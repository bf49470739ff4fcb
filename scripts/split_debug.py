"""Takes the symbols out of a Linux wheel's extension module into a file of their own, for debuggers and profilers.

    python scripts/split_debug.py WHEEL FOLDER

The wheel is rewritten in place; FOLDER gets `WHEEL's name.debug`. gdb finds it by the link that the stripped module
keeps (`.gnu_debuglink`) when it lies beside the module, or with `symbol-file`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

from rewrite_wheel import rewrite


def split(module: Path, debug: Path, objcopy: str) -> None:
    """Moves the symbols of an ELF file to `debug`."""
    subprocess.run([objcopy, "--only-keep-debug", "--compress-debug-sections", module, debug], check=True)
    subprocess.run([objcopy, "--strip-all", module], check=True)
    # Run where the file lies: the link holds a name and a checksum, no path.
    subprocess.run([objcopy, f"--add-gnu-debuglink={debug.name}", module.resolve()], check=True, cwd=debug.parent)


def take_symbols(wheel: Path, folder: Path, objcopy: str) -> Path:
    """Splits the one extension module of a wheel; returns the file with the symbols."""
    with zipfile.ZipFile(wheel) as read:
        (name,) = (n for n in read.namelist() if n.endswith(".so"))
        data = read.read(name)
    folder.mkdir(parents=True, exist_ok=True)
    debug = folder / f"{wheel.name}.debug"
    with TemporaryDirectory() as scratch:
        module = Path(scratch) / "module.so"
        module.write_bytes(data)
        split(module, debug, objcopy)
        rewrite(wheel, {name: module.read_bytes()})
    return debug


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    debug = take_symbols(arguments.wheel, arguments.folder, os.environ.get("OBJCOPY", "objcopy"))
    print(f"{arguments.wheel.stat().st_size / 1e6:.2f} MB {arguments.wheel.name}; symbols in {debug}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
