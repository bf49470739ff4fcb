"""Builds wheels as they are published: `make wheel` and the release workflow both run this.

    python scripts/build_wheels.py                                  # this machine's platform, abi3
    python scripts/build_wheels.py --abi cp314t --abi abi3t          # needs python3.14t, and python3.15t or python3.15
    python scripts/build_wheels.py --platform manylinux-aarch64

maturin must be installed, and for Linux `ziglang`, which links against an old libc.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

import split_debug
from platforms import ABIS, PLATFORMS, ROOT, wheel_name
from rewrite_wheel import rewrite

# The first of these that is found says which ABI maturin builds for: one build makes one.
INTERPRETERS = {
    "abi3": [sys.executable],
    "cp314t": ["python3.14t"],
    "abi3t": ["python3.15t", "python3.15"],
}
MACHINES = {"AMD64": "x64", "ARM64": "arm64", "arm64": "arm64", "aarch64": "aarch64", "x86_64": "x86_64"}
SYSTEMS = {"Darwin": "macos", "Linux": "manylinux", "Windows": "windows"}


def here() -> str:
    """The platform of this machine."""
    return f"{SYSTEMS[platform.system()]}-{MACHINES[platform.machine()]}"


def interpreter(abi: str) -> str:
    """A Python that stands for the ABI."""
    if abi == "abi3" and sys.version_info >= (3, 15):
        sys.exit("run this with Python 3.10 to 3.14: from 3.15 on the build is abi3t")
    for name in INTERPRETERS[abi]:
        if found := shutil.which(name):
            return found
    sys.exit(f"{abi} needs one of {INTERPRETERS[abi]} on the PATH")


def environment(name: str) -> dict[str, str]:
    """What maturin and cargo run with."""
    made = dict(os.environ)
    # maturin looks for zig with the first python3 of the PATH.
    made["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), made.get("PATH", "")])
    # The folders of the machine that builds are nobody's business, and would make each machine's wheel another one.
    home = Path(os.environ.get("CARGO_HOME", Path.home() / ".cargo"))
    remap = f"--remap-path-prefix={home}=/cargo --remap-path-prefix={ROOT}=/candlewick"
    made["RUSTFLAGS"] = f"{PLATFORMS[name].flags} {remap}".strip()
    made.pop("CARGO_ENCODED_RUSTFLAGS", None)
    if name.startswith("macos"):
        made["MACOSX_DEPLOYMENT_TARGET"] = (
            PLATFORMS[name].tag.removeprefix("macosx_").rsplit("_", 1)[0].replace("_", ".")
        )
        made["CARGO_PROFILE_DIST_SPLIT_DEBUGINFO"] = "packed"
    if "linux" in name:
        # The symbols are taken out of the finished wheel, so that they can be kept.
        made["CARGO_PROFILE_DIST_STRIP"] = "none"
    return made


def forget_folder(wheel: Path) -> None:
    """The list of what was built in (SBOM) names the sources by their place on this machine, too."""
    with zipfile.ZipFile(wheel) as read:
        lists = {name: read.read(name) for name in read.namelist() if ".dist-info/sboms/" in name}
    folder = ROOT.as_uri().encode()
    rewrite(wheel, {name: data.replace(folder, b"file:///candlewick") for name, data in lists.items()})


def build(name: str, abi: str, out: Path, symbols: Path) -> Path:
    """Builds one wheel and returns where it lies."""
    wanted = PLATFORMS[name]
    command = ["maturin", "build", "--profile", "dist", "--locked", "--compatibility", wanted.compatibility]
    if wanted.zig:
        command.append("--zig")
    if name != here():
        command += ["--target", wanted.target]
    command += ["--interpreter", interpreter(abi)]
    with TemporaryDirectory(dir=ROOT) as scratch:
        subprocess.run([*command, "--out", scratch], check=True, cwd=ROOT, env=environment(name))
        (made,) = Path(scratch).iterdir()
        if made.name != wheel_name(name, abi):
            sys.exit(f"maturin made {made.name}, expected {wheel_name(name, abi)}")
        out.mkdir(parents=True, exist_ok=True)
        wheel = Path(shutil.copy(made, out))
    forget_folder(wheel)
    if "linux" in name:
        # Binutils know the machines that they were built for.
        machine = name.rpartition("-")[2]
        foreign = "" if machine == platform.machine() else f"{machine}-linux-gnu-"
        split_debug.take_symbols(wheel, symbols, f"{foreign}objcopy")
    print(f"{wheel.stat().st_size / 1e6:.2f} MB  {wheel}")
    return wheel


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--platform", choices=PLATFORMS, default=here(), help="this machine's without it")
    parser.add_argument("--abi", choices=ABIS, action="append", help="may be given more than once; abi3 without it")
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    parser.add_argument("--symbols", type=Path, default=ROOT / "target" / "symbols", help="Linux: where symbols go")
    arguments = parser.parse_args()
    for abi in arguments.abi or ["abi3"]:
        build(arguments.platform, abi, arguments.out, arguments.symbols)
    return 0


if __name__ == "__main__":
    sys.exit(main())
