"""A request's body, read within its limits."""

from __future__ import annotations

import asyncio
import json
import math
import re
from typing import TYPE_CHECKING, Any, NoReturn

from candlewick.server.checking import Schema, check
from candlewick.server.errors import ApiError

if TYPE_CHECKING:
    from starlette.requests import Request

    from candlewick.server.limits import Limits

_HALF_CHARACTER = re.compile(rb"\\u[dD][89a-fA-F]")


async def read(request: Request, schema: Schema, limits: Limits) -> dict[str, Any]:
    """The JSON object that fits ``schema``, without the fields that are null.

    Raises:
        ApiError: It is too large, too slow, no JSON, or does not fit.
    """
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind != "application/json":
        # Also what keeps other sites' pages out: without asking first, a browser sends them no such request.
        raise ApiError(415, f"the content-type is {kind[:80]!r}, expected application/json", close=True)
    try:
        body = await asyncio.wait_for(_bytes(request, limits.body_bytes), limits.body_s)
    except asyncio.TimeoutError:
        raise ApiError(408, f"the body had not come within {limits.body_s:g} s", close=True) from None
    value = _json(body)
    check(value, schema)
    return {name: item for name, item in value.items() if item is not None}


async def _bytes(request: Request, most: int) -> bytes:
    said = request.headers.get("content-length", "")
    if said.isdecimal() and int(said[:20]) > most:
        raise _too_large(most)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise _too_large(most)
    return bytes(body)


def _too_large(most: int) -> ApiError:
    return ApiError(413, f"the body is larger than {most:,} bytes, which is the most that is taken", close=True)


def _json(body: bytes) -> Any:
    try:
        value = json.loads(body.decode(), parse_float=_number, parse_constant=_no_number)
        if _HALF_CHARACTER.search(body):
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeDecodeError as error:
        raise ApiError(400, f"the body is not UTF-8: {error.reason} at byte {error.start}") from None
    except UnicodeEncodeError:
        raise ApiError(400, "the body has a lone surrogate (\\ud800 to \\udfff), which is no character") from None
    except RecursionError:
        raise ApiError(400, "the body has brackets in each other too deep to be read") from None
    except ValueError as error:
        raise ApiError(400, f"the body is not JSON: {error}") from None
    return value


def _number(digits: str) -> float:
    """2.0 is an integer to JSON Schema."""
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"{digits[:40]} is no number of double precision")
    return int(number) if number.is_integer() and abs(number) < 2**53 else number


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")
