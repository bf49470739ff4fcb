"""Serve a model to programs that speak OpenAI's API, and to people with a chat page.

Listens on this machine alone unless --host says otherwise. Ctrl-C or SIGTERM ends it when the answers that are being
written are complete.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING

from candlewick import models
from candlewick.cli import options as parsed
from candlewick.errors import Error, InvalidRequestError

if TYPE_CHECKING:
    import argparse

EXAMPLES = """\
examples:
  candlewick serve --model demo                       (then open http://127.0.0.1:8000)
  candlewick serve --model phi3.gguf --port 8080
  CANDLEWICK_API_KEY=secret candlewick serve --host 0.0.0.0
"""

KEY = "CANDLEWICK_API_KEY"
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def run(options: argparse.Namespace) -> int:
    """The command ``serve``."""
    try:
        from candlewick.server import Limits, create_app
        from candlewick.server import run as serving
    except ModuleNotFoundError as error:
        package = (error.name or "candlewick").split(".")[0]
        if package == "candlewick":
            raise
        raise Error(f"the server needs {package}, which is not installed: pip install 'candlewick[server]'") from None

    limits = Limits(max_running=options.max_running, max_waiting=options.max_waiting, request_s=options.timeout)
    if limits.max_running < 1 or limits.max_waiting < 0 or not limits.request_s > 0:
        raise InvalidRequestError(
            f"--max-running is {limits.max_running}, --max-waiting {limits.max_waiting} and --timeout "
            f"{limits.request_s:g}, expected at least 1, at least 0 and above 0"
        )
    if not 0 <= options.port <= 65535:
        raise InvalidRequestError(f"--port is {options.port}, expected 0 (any) to 65535")
    keys = options.api_key or [key for key in [os.environ.get(KEY)] if key]
    local = options.host in LOOPBACK
    if not local and not keys:
        print(
            f"Everybody who can reach {options.host} may use this server: set {KEY} to ask for a key.", file=sys.stderr
        )
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    # Its lines about its own state say what ours say.
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    # A mistake shows now, and not after gigabytes were loaded.
    with serving.listen(options.host, options.port) as listener, parsed.generator(options) as generator:
        app = create_app(
            generator,
            model=models.name(options.model),
            api_keys=keys,
            limits=limits,
            cors_origins=options.cors_origin or (),
            hosts=LOOPBACK if local else None,
        )
        address = serving.address(listener)
        said = f"Serving on {address}/v1 (the chat page: {address}). Ctrl-C ends it."
        serving.run(app, listener, lambda: print(said, file=sys.stderr, flush=True))
    return 0
