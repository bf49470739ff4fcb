"""What a release consists of: the platforms, the ABIs, and the file names that follow from them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Platform:
    """A platform that gets wheels."""

    target: str
    """The Rust target triple."""
    tag: str
    """The platform part of the wheel's name."""
    compatibility: str = "pypi"
    """What maturin is asked for; with `zig` it decides the oldest libc."""
    zig: bool = False
    """Linked with zig against an old libc, so that no old system and no container is needed."""
    flags: str = "-C target-cpu=generic"
    """`RUSTFLAGS`: they override `.cargo/config.toml`, whose fp16 a wheel must not have."""


# zig knows no CPU `generic` for x86-64; `x86-64` is the same baseline there.
X86 = "-C target-cpu=x86-64"
# A shared library cannot have musl in it: the one of the interpreter is used.
MUSL = " -C target-feature=-crt-static"

PLATFORMS = {
    "manylinux-x86_64": Platform(
        "x86_64-unknown-linux-gnu", "manylinux2014_x86_64.manylinux_2_17_x86_64", "manylinux_2_17", zig=True, flags=X86
    ),
    "manylinux-aarch64": Platform(
        "aarch64-unknown-linux-gnu", "manylinux2014_aarch64.manylinux_2_17_aarch64", "manylinux_2_17", zig=True
    ),
    "musllinux-x86_64": Platform(
        "x86_64-unknown-linux-musl", "musllinux_1_2_x86_64", "musllinux_1_2", zig=True, flags=X86 + MUSL
    ),
    "musllinux-aarch64": Platform(
        "aarch64-unknown-linux-musl",
        "musllinux_1_2_aarch64",
        "musllinux_1_2",
        zig=True,
        flags="-C target-cpu=generic" + MUSL,
    ),
    # Every 64-bit ARM Mac has what the target's own baseline says, dot products and fp16 among it.
    "macos-arm64": Platform("aarch64-apple-darwin", "macosx_11_0_arm64", flags=""),
    "macos-x86_64": Platform("x86_64-apple-darwin", "macosx_10_12_x86_64", flags=X86),
    "windows-x64": Platform("x86_64-pc-windows-msvc", "win_amd64", flags=X86),
    "windows-arm64": Platform("aarch64-pc-windows-msvc", "win_arm64"),
}

# One build makes one of these. cp310-abi3 serves every CPython from 3.10 on that has the GIL; 3.14 without it has no
# stable ABI; cp315-abi3.abi3t serves 3.15 and later, with and without.
ABIS = {
    "abi3": "cp310-abi3",
    "cp314t": "cp314-cp314t",
    "abi3t": "cp315-abi3.abi3t",
}


def version() -> str:
    """The version in Cargo.toml, which maturin gives to the wheels."""
    found = re.search(r'^version = "([^"]+)"$', (ROOT / "Cargo.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert found, "Cargo.toml has no version"
    # Cargo writes 1.0.0-rc.1, Python 1.0.0rc1.
    return re.sub(r"-(a|b|rc)[a-z]*\.?", r"\1", found[1])


def wheel_name(platform: str, abi: str) -> str:
    """The file name of a wheel."""
    return f"candlewick-{version()}-{ABIS[abi]}-{PLATFORMS[platform].tag}.whl"


def sdist_name() -> str:
    """The file name of the source distribution."""
    return f"candlewick-{version()}.tar.gz"
