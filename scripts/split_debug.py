"""Takes the symbols out of a Linux wheel's extension module into a file of their own, for debuggers and profilers.

    python scripts/split_debug.py WHEEL FOLDER

The wheel is rewritten in place; FOLDER gets `WHEEL's name.debug`. gdb finds it by the link that the stripped module
keeps (`.gnu_debuglink`) when it lies beside the module, or with `symbol-file`.
"""

from __future__ import annotations

import argparse
import base64
import csv
import hashlib
import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory


def split(module: Path, debug: Path, objcopy: str) -> None:
    """Moves the symbols of an ELF file to `debug`."""
    subprocess.run([objcopy, "--only-keep-debug", "--compress-debug-sections", module, debug], check=True)
    subprocess.run([objcopy, "--strip-all", module], check=True)
    # Run where the file lies: the link holds a name and a checksum, no path.
    subprocess.run([objcopy, f"--add-gnu-debuglink={debug.name}", module.resolve()], check=True, cwd=debug.parent)


def record_line(data: bytes) -> list[str]:
    """Hash and size as RECORD has them."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return [f"sha256={digest}", str(len(data))]


def rewrite(wheel: Path, folder: Path, objcopy: str) -> Path:
    """Splits the one extension module of a wheel; returns the file with the symbols."""
    with zipfile.ZipFile(wheel) as old:
        entries = [(info, old.read(info)) for info in old.infolist()]
    (name,) = (info.filename for info, _ in entries if info.filename.endswith(".so"))
    folder.mkdir(parents=True, exist_ok=True)
    debug = folder / f"{wheel.name}.debug"
    with TemporaryDirectory() as scratch:
        module = Path(scratch) / "module.so"
        module.write_bytes(next(data for info, data in entries if info.filename == name))
        split(module, debug, objcopy)
        stripped = module.read_bytes()

    new = wheel.with_suffix(".tmp")
    with zipfile.ZipFile(new, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as out:
        for info, data in entries:
            if info.filename == name:
                data = stripped
            elif info.filename.endswith(".dist-info/RECORD"):
                rows = list(csv.reader(io.StringIO(data.decode())))
                changed = [[row[0], *record_line(stripped)] if row and row[0] == name else row for row in rows]
                text = io.StringIO()
                csv.writer(text, lineterminator="\n").writerows(changed)
                data = text.getvalue().encode()
            out.writestr(info, data, zipfile.ZIP_DEFLATED)
    new.replace(wheel)
    return debug


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    debug = rewrite(arguments.wheel, arguments.folder, os.environ.get("OBJCOPY", "objcopy"))
    print(f"{arguments.wheel.stat().st_size / 1e6:.2f} MB {arguments.wheel.name}; symbols in {debug}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
