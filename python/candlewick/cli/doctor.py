"""Look at this installation and this machine: what works, what does not, and what to do about it.

Nothing is fetched and the hub is not asked. The demo model runs on every tier of kernels that this CPU has. The exit
code is 1 where something is broken. With --json the report is one object, for a bug report, without token or password.
"""

from __future__ import annotations

import json
import textwrap
from typing import TYPE_CHECKING

from candlewick import __version__
from candlewick.cli import checks
from candlewick.cli.screen import Screen

if TYPE_CHECKING:
    import argparse

    from candlewick.cli.checks import Finding

EXAMPLES = """\
examples:
  candlewick doctor
  candlewick doctor --json > report.json
"""

_WIDTH = 80
_MARKS = {checks.OK: "ok", checks.NOTE: "note", checks.BROKEN: "BROKEN"}


def run(options: argparse.Namespace) -> int:
    """The command ``doctor``."""
    findings = []
    with Screen() as screen:
        for check in checks.ALL:
            screen.show(f"looking at: {check.__name__}")
            finding = checks.find(check)
            findings.append(finding)
            if not options.json:
                screen.clear()
                print("\n".join(_lines(finding)), flush=True)
    broken = [finding.name for finding in findings if finding.status == checks.BROKEN]
    if options.json:
        report = {finding.name: finding._asdict() for finding in findings}
        print(json.dumps({"candlewick": __version__, "broken": broken, "checks": report}, ensure_ascii=False))
    else:
        print(f"\nBroken: {', '.join(broken)}." if broken else "\nNothing is broken.")
    return 1 if broken else 0


def _lines(finding: Finding) -> list[str]:
    """A finding as a person reads it, at most 80 columns wide."""
    lines = []
    for i, text in enumerate(finding.says):
        head = f"{_MARKS[finding.status]:<7} {finding.name:<9}" if i == 0 else ""
        lines += textwrap.wrap(
            text, _WIDTH, initial_indent=f"{head:<17} ", subsequent_indent=" " * 18, break_on_hyphens=False
        )
    for text in finding.advice:
        lines += textwrap.wrap(
            text, _WIDTH, initial_indent=f"{'':<15}-> ", subsequent_indent=" " * 18, break_on_hyphens=False
        )
    return lines
