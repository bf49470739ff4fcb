"""List the models in the cache, with their sizes: all of them can be used without a network."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from candlewick import _native
from candlewick.cli.size import readable

if TYPE_CHECKING:
    import argparse


class Cached(NamedTuple):
    """A GGUF file of a repository."""

    repo: str
    filename: str
    n_bytes: int
    revisions: list[str]
    path: str


def run(options: argparse.Namespace) -> int:
    """The command ``models``."""
    folder = Path(options.cache_dir).expanduser() if options.cache_dir else Path(_native.cache_dir())
    found = sorted(scan(folder))
    if options.json:
        print(json.dumps([entry._asdict() for entry in found], ensure_ascii=False))
        return 0
    if not found:
        print(f"no models in {folder}; `candlewick pull` fetches one", file=sys.stderr)
        return 0
    names = [f"{entry.repo}  {entry.filename}" for entry in found]
    width = max(map(len, names))
    for name, entry in zip(names, found, strict=True):
        print(f"{name:<{width}}  {readable(entry.n_bytes):>8}  {', '.join(entry.revisions)}")
    print(f"{readable(sum(entry.n_bytes for entry in found))} in {folder}", file=sys.stderr)
    return 0


def scan(folder: Path) -> list[Cached]:
    """GGUF files of complete snapshots, in the layout of huggingface_hub."""
    found = []
    for repo in folder.glob("models--*"):
        refs: dict[str, list[str]] = {}
        for ref in (repo / "refs").rglob("*"):
            if ref.is_file():
                refs.setdefault(ref.read_text().strip(), []).append(str(ref.relative_to(repo / "refs")))
        for snapshot in (repo / "snapshots").glob("*"):
            for file in snapshot.rglob("*.gguf"):
                if file.is_file():
                    found.append(
                        Cached(
                            repo=repo.name.removeprefix("models--").replace("--", "/"),
                            filename=str(file.relative_to(snapshot)),
                            n_bytes=file.stat().st_size,
                            revisions=sorted(refs.get(snapshot.name, [snapshot.name[:12]])),
                            path=str(file),
                        )
                    )
    return found
