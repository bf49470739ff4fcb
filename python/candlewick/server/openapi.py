"""The OpenAPI document: the schemas that requests are checked against, and the outlines of the answers."""

from __future__ import annotations

from typing import Any

from candlewick import __version__
from candlewick.server import schemas
from candlewick.server.checking import Schema

_ERRORS = {
    "400": "The request is wrong; the message says where.",
    "401": "No API key, or a wrong one.",
    "403": "The server was called by a name that is not its own.",
    "404": "There is no such model.",
    "408": "The body did not come in time.",
    "413": "The body is too large.",
    "415": "The content-type is not application/json.",
    "429": "Too many requests wait; `Retry-After` says when to try again.",
    "503": "The server is about to end, or short of memory or time.",
}


BODIES = {"Chat": schemas.CHAT, "Completion": schemas.COMPLETION, "Response": schemas.RESPONSE}


def document(model: str) -> dict[str, Any]:
    """All of it, for a server of ``model``."""
    name = {"type": "string", "enum": [model]}
    chat = _answer("chat.completion", {"choices": schemas.array(schemas.ANY_OBJECT, 1), "usage": schemas.ANY_OBJECT})
    completion = _answer(
        "text_completion", {"choices": schemas.array(schemas.ANY_OBJECT, 1), "usage": schemas.ANY_OBJECT}
    )
    response = _answer("response", {"output": schemas.array(schemas.ANY_OBJECT), "status": schemas.text()})
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "candlewick",
            "version": __version__,
            "description": "A Phi model behind the endpoints of OpenAI's API.",
        },
        "paths": {
            "/v1/chat/completions": {"post": _post("Answer a conversation.", "Chat", chat, streams=True)},
            "/v1/completions": {"post": _post("Continue a text.", "Completion", completion, streams=True)},
            "/v1/responses": {
                "post": _post("Answer, as the newer of OpenAI's APIs.", "Response", response, streams=True)
            },
            "/v1/models": {
                "get": _get(
                    "The model that is here.",
                    {"application/json": {"schema": _object(object={"const": "list"}, data=schemas.array(_MODEL))}},
                    ("401", "403"),
                )
            },
            "/v1/models/{model}": {
                "get": {
                    **_get("The model, by its name.", {"application/json": {"schema": _MODEL}}, ("401", "403", "404")),
                    "parameters": [{"name": "model", "in": "path", "required": True, "schema": name}],
                }
            },
            "/health": {
                "get": {
                    **_get(
                        "Whether it is there.",
                        {"application/json": {"schema": _object(status={"const": "ok"})}},
                        ("403",),
                    ),
                    "security": [],
                }
            },
            "/metrics": {
                "get": _get(
                    "Counts and times for Prometheus.", {"text/plain": {"schema": schemas.text()}}, ("401", "403")
                )
            },
        },
        "components": {
            "schemas": {
                **{title: _with_model(body, name) for title, body in BODIES.items()},
                "Error": _ERROR,
            },
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}, {}],
    }


def _with_model(body: Schema, name: Schema) -> Schema:
    return {**body, "properties": {**body["properties"], "model": name}}


def _object(**properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": list(properties)}


_NULLABLE_TEXT = {"type": ["string", "null"]}
_ERROR = _object(error=_object(message=schemas.text(), type=schemas.text(), param=_NULLABLE_TEXT, code=_NULLABLE_TEXT))
_MODEL = _object(
    id=schemas.text(),
    object={"const": "model"},
    created=schemas.integer(0),
    owned_by=schemas.text(),
    candlewick=schemas.ANY_OBJECT,
)


def _answer(kind: str, fields: dict[str, Schema]) -> Schema:
    return _object(id=schemas.text(), object={"const": kind}, model=schemas.text(), **fields)


def _post(summary: str, body: str, answer: Schema, *, streams: bool) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": answer}}
    if streams:
        content["text/event-stream"] = {}
    schema = {"$ref": f"#/components/schemas/{body}"}
    return {
        "summary": summary,
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
        "responses": {"200": {"description": "The answer.", "content": content}, **_errors(tuple(_ERRORS))},
    }


def _get(summary: str, content: dict[str, Any], errors: tuple[str, ...]) -> dict[str, Any]:
    return {"summary": summary, "responses": {"200": {"description": summary, "content": content}, **_errors(errors)}}


def _errors(statuses: tuple[str, ...]) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {status: {"description": _ERRORS[status], "content": content} for status in statuses}
