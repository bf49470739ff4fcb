"""What a wheel's machine code is made of: `python scripts/size_by_crate.py target/symbols/WHEEL.debug`.

Generic code counts for the crate that its first path belongs to, so `core` and `alloc` are mostly made by others.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

# `<candle_core::Tensor as Clone>::clone`, `<&mut dyn serde::...`, `candlewick::text::...`
CRATE = re.compile(r"[<&(\[*]*(?:(?:mut|dyn|const|impl) )*([A-Za-z_]\w*)")
# Symbol, size, kind and name; `t` and `w` are code.
LINE = re.compile(r"^[0-9a-f]+ ([0-9a-f]+) [tTwW] (.+)$", re.MULTILINE)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("symbols", type=Path)
    parser.add_argument("--nm", default="nm")
    arguments = parser.parse_args()
    command = [arguments.nm, "--print-size", "--demangle", "--defined-only", str(arguments.symbols)]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    sizes = Counter[str]()
    for size, name in LINE.findall(listing):
        found = CRATE.match(name)
        sizes[found[1] if found else "other"] += int(size, 16)
    total = sizes.total()
    for crate, size in sizes.most_common(25):
        print(f"{size / 1000:8.0f} kB {size / total:6.1%}  {crate}")
    print(f"{total / 1000:8.0f} kB         all")
    return 0


if __name__ == "__main__":
    sys.exit(main())
