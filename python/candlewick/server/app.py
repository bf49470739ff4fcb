"""The ASGI application."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Collection
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from candlewick.server import chat, completions, openapi, page, responses, schemas
from candlewick.server.endpoint import Endpoint
from candlewick.server.errors import ApiError
from candlewick.server.limits import Limits
from candlewick.server.metrics import CONTENT_TYPE
from candlewick.server.middleware import Guarded, Observed
from candlewick.server.models import model as describe
from candlewick.server.service import Service

if TYPE_CHECKING:
    from starlette.requests import Request

    from candlewick.generator import Generator


def create_app(
    generator: Generator,
    *,
    model: str | None = None,
    api_keys: Collection[str] = (),
    limits: Limits | None = None,
    cors_origins: Collection[str] = (),
    hosts: Collection[str] | None = None,
) -> Starlette:
    """An application that answers as OpenAI's API does, and has a chat page at ``/``.

    Args:
        generator: Who answers. It is not closed with the application.
        model: What requests call it; ``None`` is the name in the file, or the file's.
        api_keys: Requests must bring one of these, but for the page, ``/health`` and ``/openapi.json``; without any,
            all are answered.
        limits: How much is done at once; ``None`` is `Limits`' defaults.
        cors_origins: Other sites whose pages may call this one, such as ``"https://example.org"``; ``"*"`` is all.
        hosts: Without keys, the names that the server answers to; ``None`` is any.

    Returns:
        A Starlette application; ``app.state.service`` has the counts, and ``service.gate.close()`` begins its end.
    """
    if model is None:
        info = generator.info
        model = info["name"] or info["path"].stem
    service = Service(generator, model, limits or Limits())
    files = page.routes()
    document = openapi.document(service.model)

    async def models(request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [describe(service)]})

    async def one_model(request: Request) -> Response:
        service.check_model(request.path_params["model"])
        return JSONResponse(describe(service))

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def metrics(request: Request) -> Response:
        stats = generator.stats
        gauges = {
            "candlewick_answers_running": ("Answers that are being written.", service.gate.running),
            "candlewick_requests_waiting": ("Requests that wait for their turn.", service.gate.waiting),
            "candlewick_streams_running": ("Streams of the model that have begun and not ended.", stats.running),
            "candlewick_streams_waiting": ("Streams that want their first token.", stats.waiting),
            "candlewick_kv_bytes": ("Keys and values, each page once, kept ones included.", stats.kv_bytes),
            "candlewick_kept_bytes": ("Of these, kept for prompts that begin alike.", stats.kept_bytes),
        }
        return Response(service.metrics.text(gauges), media_type=CONTENT_TYPE)

    async def schema(request: Request) -> Response:
        return JSONResponse(document)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            service.close()

    app = Starlette(
        routes=[
            Route("/v1/chat/completions", Endpoint(service, schemas.CHAT, chat.answer), methods=["POST"]),
            Route("/v1/completions", Endpoint(service, schemas.COMPLETION, completions.answer), methods=["POST"]),
            Route("/v1/responses", Endpoint(service, schemas.RESPONSE, responses.answer), methods=["POST"]),
            Route("/v1/models", models),
            Route("/v1/models/{model:path}", one_model),
            Route("/health", health),
            Route("/metrics", metrics),
            Route("/openapi.json", schema),
            *files,
        ],
        middleware=[
            Middleware(Observed, metrics=service.metrics),
            *([_cors(cors_origins)] if cors_origins else []),
            Middleware(Guarded, keys=api_keys, hosts=hosts, page=[route.path for route in files]),
        ],
        exception_handlers={HTTPException: _http_error, ApiError: _api_error},
        lifespan=lifespan,
    )
    app.state.service = service
    return app


def _cors(origins: Collection[str]) -> Middleware:
    return Middleware(CORSMiddleware, allow_origins=list(origins), allow_methods=["GET", "POST"], allow_headers=["*"])


async def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return JSONResponse(error.body(), error.status, error.headers)


async def _http_error(request: Request, error: Exception) -> Response:
    """What Starlette itself finds wrong: there is no such path, or not with this method."""
    assert isinstance(error, HTTPException)
    said = {
        404: f"there is nothing at {request.url.path!r:.200}",
        405: f"{request.method:.20} does not go with this path",
    }
    answer = ApiError(error.status_code, said.get(error.status_code, error.detail))
    return JSONResponse(answer.body(), error.status_code, dict(error.headers or {}))
