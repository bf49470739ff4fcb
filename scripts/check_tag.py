"""Checks that a release's tag, Cargo.toml and the changelog agree: `python scripts/check_tag.py v1.2.3`."""

from __future__ import annotations

import sys

from platforms import ROOT, version


def main() -> int:
    tag = sys.argv[1]
    if tag != f"v{version()}":
        print(f"the tag is {tag}, Cargo.toml's version {version()}", file=sys.stderr)
        return 1
    heading = f"## {version()}"
    lines = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").splitlines()
    if not any(line == heading or line.startswith(f"{heading} ") for line in lines):
        print(f"CHANGELOG.md has no heading `{heading}`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
