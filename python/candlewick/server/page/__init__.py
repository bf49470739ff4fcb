"""The chat page: files that are served as they are."""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}

# Nothing from elsewhere, nothing inline, in nobody's frame.
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


def routes() -> list[Route]:
    """One for each file, and ``/`` for the page itself."""
    folder = Path(__file__).parent
    files = sorted(path for path in folder.iterdir() if path.suffix in _TYPES)
    return [_route("/" if path.name == "index.html" else f"/{path.name}", path) for path in files]


def _route(place: str, path: Path) -> Route:
    content, kind = path.read_bytes(), _TYPES[path.suffix]

    async def file(request: Request) -> Response:
        return Response(content, media_type=kind, headers=_HEADERS)

    return Route(place, file)
