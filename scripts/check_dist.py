"""Checks what is about to be published: the exact set of files, their sizes and what is in them.

python scripts/check_dist.py dist                    # a whole release
python scripts/check_dist.py dist --partial          # what is there must belong to a release, but need not be all
"""

from __future__ import annotations

import argparse
import re
import sys
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from absolute_links import RELATIVE
from platforms import ABIS, PLATFORMS, sdist_name, version, wheel_name

MAX_WHEEL_BYTES = 12_000_000
# What every wheel has beside the extension module.
IN_WHEEL = {
    "candlewick/__init__.py",
    "candlewick/_native.pyi",
    "candlewick/demo.gguf",
    "candlewick/py.typed",
    "candlewick/server/page/index.html",
}
IN_SDIST = {"Cargo.toml", "Cargo.lock", "PKG-INFO", "pyproject.toml", "LICENSE-APACHE", "LICENSE-MIT", "src/lib.rs"}
# What is built, and what is hidden: local settings and what tools leave behind. `.cargo` would make an ARM build from
# the sdist need fp16.
NOT_IN_SDIST = re.compile(r"(^|/)(target|dist|\.[^/]*)(/|$)")


def expected() -> set[str]:
    """The file names of a whole release."""
    return {sdist_name()} | {wheel_name(platform, abi) for platform in PLATFORMS for abi in ABIS}


def wheel_problems(path: Path) -> Iterable[str]:
    """What is wrong with a wheel."""
    size = path.stat().st_size
    if size > MAX_WHEEL_BYTES:
        yield f"is {size:,} bytes, more than {MAX_WHEEL_BYTES:,}"
    with zipfile.ZipFile(path) as wheel:
        names = set(wheel.namelist())
    modules = [n for n in names if PurePosixPath(n).suffix in {".so", ".pyd"}]
    if len(modules) != 1 or not modules[0].startswith("candlewick/_native."):
        yield f"has the extension modules {sorted(modules)}, expected one candlewick/_native"
    if missing := IN_WHEEL - names:
        yield f"lacks {sorted(missing)}"
    licences = {PurePosixPath(n).name for n in names if ".dist-info/licenses/" in n}
    if missing := {"LICENSE-APACHE", "LICENSE-MIT"} - licences:
        yield f"lacks {sorted(missing)} in its metadata"
    metadata = f"candlewick-{version()}.dist-info/"
    if strangers := [n for n in names if not n.startswith(("candlewick/", metadata))]:
        yield f"would install {sorted(strangers)}"


def sdist_problems(path: Path) -> Iterable[str]:
    """What is wrong with a source distribution."""
    with tarfile.open(path) as sdist:
        names = {str(PurePosixPath(*PurePosixPath(n).parts[1:])) for n in sdist.getnames()}
    if missing := IN_SDIST - names:
        yield f"lacks {sorted(missing)}"
    if wrong := [n for n in names if n != "." and NOT_IN_SDIST.search(n)]:
        yield f"has {sorted(wrong)}"


def description(path: Path) -> str:
    """What the index shows: the metadata of a wheel or a source distribution, the README among it."""
    if path.name.endswith(".whl"):
        with zipfile.ZipFile(path) as wheel:
            return wheel.read(f"candlewick-{version()}.dist-info/METADATA").decode()
    with tarfile.open(path) as sdist:
        metadata = sdist.extractfile(f"{path.name.removesuffix('.tar.gz')}/PKG-INFO")
        assert metadata
        return metadata.read().decode()


def problems(folder: Path, *, partial: bool) -> list[str]:
    """What is wrong with the files of a folder, a line for each thing."""
    there = {p.name for p in folder.iterdir()}
    found = [f"{name}: not expected" for name in sorted(there - expected())]
    if not partial:
        found += [f"{name}: missing" for name in sorted(expected() - there)]
    elif not there:
        found.append(f"{folder} is empty")
    for name in sorted(there & expected()):
        check = wheel_problems if name.endswith(".whl") else sdist_problems
        found += [f"{name}: {problem}" for problem in check(folder / name)]
        if not partial:
            # The index has the README, and not the files beside it (scripts/absolute_links.py).
            links = [link[0] for link in RELATIVE.finditer(description(folder / name))]
            found += [f"{name}: the index cannot show {link}" for link in links]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--partial", action="store_true", help="some of a release's files may be missing")
    arguments = parser.parse_args()
    found = problems(arguments.folder, partial=arguments.partial)
    for line in found:
        print(line, file=sys.stderr)
    for path in sorted(arguments.folder.iterdir()):
        print(f"{path.stat().st_size / 1e6:6.2f} MB  {path.name}")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
