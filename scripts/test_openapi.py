"""What schemathesis makes of the server's OpenAPI document: thousands of requests, and no answer of 5xx.

    python scripts/test_openapi.py [--examples 50]

Answers must have the statuses, types and forms that the document says, and what does not fit it must be refused. What
fits may still be refused: that a prompt is too long, or that a tool is chosen which is not there, no schema can say.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import sysconfig
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from serving import eventually, serving

from candlewick import Generator


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=50, help="for each endpoint (default: %(default)s)")
    options = parser.parse_args()
    # A short context: what is asked for without a limit ends soon.
    with Generator("demo", n_ctx=128) as generator, serving(generator) as server:
        command = [
            Path(sysconfig.get_path("scripts")) / "schemathesis",
            "run",
            f"{server.url}/openapi.json",
            f"--max-examples={options.examples}",
            "--request-timeout=120",
            "--exclude-checks=positive_data_acceptance",
        ]
        code = subprocess.call(command)
        eventually(server.is_idle)
        statuses = [status for _, status in server.service.metrics.requests.values()]
        print(f"{len(statuses)} kinds of answers, statuses {sorted(set(statuses))}")
        assert not [status for status in statuses if status.startswith("5") and status != "503"]
    return code


if __name__ == "__main__":
    sys.exit(main())
