"""Gives the README addresses that work away from the repository, as on the page of the package index.

    python scripts/absolute_links.py https://github.com/owner/candlewick v1.2.3

The release workflow runs this before it builds: where the repository lies is known there, and the README stays one that
can be read in a checkout.
"""

from __future__ import annotations

import re
import sys

from platforms import ROOT

# A link or a picture to a file of the repository: neither an address nor a place on the same page.
RELATIVE = re.compile(r"(!?)\[([^\]]*)\]\((?!https?://|#)([^)\s]+)\)")


def absolute(text: str, repository: str, commit: str) -> str:
    """Markdown with pictures as files and links as pages of `repository` at `commit`, a tag or a hash."""

    def whole(found: re.Match[str]) -> str:
        picture, words, path = found.groups()
        return f"{picture}[{words}]({repository}/{'raw' if picture else 'blob'}/{commit}/{path})"

    return RELATIVE.sub(whole, text)


def main() -> int:
    _, repository, commit = sys.argv
    readme = ROOT / "README.md"
    readme.write_text(absolute(readme.read_text(encoding="utf-8"), repository, commit), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
