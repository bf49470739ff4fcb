"""Keys, limits, clients that leave or dawdle, counts: what a server must bear, whatever it serves."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from serving import HAIKU, Serving, events, eventually, serving
from starlette.applications import Starlette
from starlette.routing import Mount

from candlewick import Generator
from candlewick.server import Limits, create_app

pytestmark = pytest.mark.thread_unsafe(reason="counts what one server does")

CHAT = "/v1/chat/completions"
KEY = "sk-correct-horse"


@pytest.fixture(scope="module")
def server(demo: Generator) -> Iterator[Serving]:
    with serving(demo) as running:
        yield running


@pytest.fixture
def endless(demo: Generator) -> dict[str, Any]:
    """A request for as much text as fits in the context."""
    return HAIKU | {"stream": True, "logit_bias": {str(id): -100 for id in demo.tokenizer.eos_token_ids}}


@pytest.fixture
def slow(demo: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model takes a while for each token."""
    stream_tokens = demo.stream_tokens

    def slowly(ids: list[int], logits: Any) -> None:
        time.sleep(0.01)

    monkeypatch.setattr(demo, "stream_tokens", lambda *a, **o: stream_tokens(*a, **o, logits_processor=slowly))


@contextlib.contextmanager
def streaming(server: Serving, body: dict[str, Any]) -> Iterator[Iterator[Any]]:
    """A stream whose first words have come."""
    with httpx.stream("POST", server.url + CHAT, json=body, timeout=60) as response:
        assert response.status_code == 200
        parts = events(response)
        next(part for part in parts if part["choices"][0]["delta"].get("content"))
        yield parts


def connected(server: Serving) -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=30)


def request(body: bytes = b"", length: int | None = None) -> bytes:
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body) if length is None else length}\r\n\r\n".encode() + body


def everything(connection: socket.socket) -> bytes:
    """What comes until the server closes the connection."""
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(1 << 16):
            parts.append(part)
    return b"".join(parts)


def test_keys(demo: Generator, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with serving(demo, api_keys=["another", KEY]) as server:
        for path in ("/v1/models", "/v1/models/demo", "/metrics"):
            for given, code in [
                (None, "missing_api_key"),
                ("", "missing_api_key"),
                ("Bearer", "missing_api_key"),
                (f"Basic {KEY}", "missing_api_key"),
                ("Bearer wrong", "invalid_api_key"),
                (f"Bearer {KEY}x", "invalid_api_key"),
                (f"Bearer {KEY[:-1]}", "invalid_api_key"),
            ]:
                response = httpx.get(server.url + path, headers={} if given is None else {"authorization": given})
                assert (response.status_code, response.json()["error"]["code"]) == (401, code)
                assert response.headers["www-authenticate"] == "Bearer"
            for key in (KEY, "another"):
                assert httpx.get(server.url + path, headers={"authorization": f"bearer  {key}"}).status_code == 200
        assert server.post(CHAT, HAIKU).status_code == 401
        assert server.post(CHAT, HAIKU, headers={"authorization": f"Bearer {KEY}"}).status_code == 200
        assert httpx.get(f"{server.url}/health").json() == {"status": "ok"}
        # A key in the wrong place
        httpx.get(f"{server.url}/v1/models?api_key={KEY}")
    mine = [record for record in caplog.records if record.name.startswith("candlewick")]
    assert mine and not any(KEY in record.getMessage() for record in mine)


def test_mounted_under_a_path_it_asks_for_a_key_too(demo: Generator) -> None:
    app = Starlette(routes=[Mount("/llm", create_app(demo, model="demo", api_keys=[KEY]))])

    async def statuses(paths: list[str], **headers: str) -> list[int]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
            return [(await client.get(f"/llm{path}", headers=headers)).status_code for path in paths]

    guarded = ["/v1/models", "/metrics", "/v1//models", "/nowhere"]
    assert asyncio.run(statuses(guarded)) == [401] * 4
    assert asyncio.run(statuses(guarded, authorization=f"Bearer {KEY}")) == [200, 200, 404, 404]
    assert asyncio.run(statuses(["/", "/app.js", "/health", "/openapi.json"])) == [200] * 4


def test_the_page_asks_nothing_of_any_other_place(server: Serving) -> None:
    answer = httpx.get(f"{server.url}/")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    files = re.findall(r'(?:src|href)="([^"#]+)"', answer.text)
    assert {"app.js", "style.css", "icon.svg"} <= set(files)
    for name in files:
        assert httpx.get(f"{server.url}/{name}").status_code == 200
    # A page that is mounted under a path finds its files there.
    assert not any(name.startswith("/") for name in files)


def test_any_key_is_accepted_where_none_is_set(server: Serving) -> None:
    assert httpx.get(f"{server.url}/v1/models", headers={"authorization": "Bearer x"}).status_code == 200


def test_a_server_for_this_machine_answers_to_no_other_name(demo: Generator) -> None:
    with serving(demo, hosts=["127.0.0.1", "::1", "localhost"]) as server:
        for host, status in [
            ("evil.example", 403),
            ("evil.example:80", 403),
            ("127.0.0.1.evil.example", 403),
            ("", 403),
            ("LOCALHOST:8000", 200),
            ("[::1]:8000", 200),
        ]:
            assert httpx.get(f"{server.url}/v1/models", headers={"host": host}).status_code == status
    with serving(demo, hosts=["localhost"], api_keys=[KEY]) as server:
        headers = {"host": "evil.example", "authorization": f"Bearer {KEY}"}
        assert httpx.get(f"{server.url}/v1/models", headers=headers).status_code == 200


def test_other_sites(server: Serving, demo: Generator) -> None:
    ask = {"origin": "https://example.org", "access-control-request-method": "POST"}
    refused = httpx.options(server.url + CHAT, headers=ask)
    assert refused.status_code == 405 and "access-control-allow-origin" not in refused.headers
    plain = server.post(CHAT, HAIKU, headers={"origin": "https://example.org"})
    assert "access-control-allow-origin" not in plain.headers
    with serving(demo, cors_origins=["https://example.org"], api_keys=[KEY]) as open_:
        allowed = httpx.options(open_.url + CHAT, headers=ask)
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == "https://example.org"
        other = httpx.options(open_.url + CHAT, headers=ask | {"origin": "https://example.com"})
        assert other.status_code == 400


def test_request_ids(server: Serving) -> None:
    def ids(**headers: str) -> str:
        return httpx.get(f"{server.url}/v1/models", headers=headers).headers["x-request-id"]

    assert ids(**{"x-request-id": "trace-1.2:3"}) == "trace-1.2:3"
    assert ids() != ids()
    for strange in ("a b", "x" * 200, "{}"):
        assert ids(**{"x-request-id": strange}) != strange
    assert "x-request-id" in server.post(CHAT, {}).headers


def test_metrics(demo: Generator, endless: dict[str, Any]) -> None:
    parser = pytest.importorskip("prometheus_client.parser")

    with serving(demo) as server:

        def values() -> dict[str, float]:
            response = httpx.get(f"{server.url}/metrics")
            assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
            families = parser.text_string_to_metric_families(response.text)
            return {
                sample.name + json.dumps(sample.labels, sort_keys=True): sample.value
                for family in families
                for sample in family.samples
            }

        assert values()["candlewick_completion_tokens_total{}"] == 0
        usage = server.post(CHAT, HAIKU).json()["usage"]
        server.post(CHAT, {})
        with streaming(server, endless):
            now = values()
            assert now["candlewick_answers_running{}"] == 1
            assert now["candlewick_kv_bytes{}"] > now["candlewick_kept_bytes{}"]
        eventually(server.is_idle)
        eventually(lambda: values()["candlewick_streams_running{}"] == 0)
        server.post(CHAT, HAIKU | {"max_tokens": 1})
        now = values()
        assert now["candlewick_answers_running{}"] == now["candlewick_requests_waiting{}"] == 0
        assert now["candlewick_kv_bytes{}"] == now["candlewick_kept_bytes{}"]
        assert now["candlewick_completion_tokens_total{}"] > usage["completion_tokens"]
        assert now["candlewick_prompt_tokens_total{}"] == 3 * usage["prompt_tokens"]
        assert now['candlewick_requests_total{"path": "/v1/chat/completions", "status": "200"}'] == 3
        assert now['candlewick_requests_total{"path": "/v1/chat/completions", "status": "400"}'] == 1
        assert now["candlewick_time_to_first_token_seconds_count{}"] == 3
        assert now['candlewick_time_to_first_token_seconds_bucket{"le": "+Inf"}'] == 3
        assert now["candlewick_time_per_token_seconds_count{}"] == 2
        assert now["candlewick_queue_seconds_count{}"] == 3


def test_a_body_that_is_too_large_is_refused_before_it_comes(server: Serving) -> None:
    with connected(server) as connection:
        connection.sendall(request(length=50_000_000))
        answer = everything(connection)
    assert answer.startswith(b"HTTP/1.1 413 ") and b"4,194,304 bytes" in answer


def test_a_body_whose_size_is_not_said_is_read_no_further_than_it_may_be(server: Serving) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while True:
            sent += 1 << 16
            yield b" " * (1 << 16)

    response = httpx.post(server.url + CHAT, content=endless(), headers={"content-type": "application/json"})
    assert response.status_code == 413
    # What lies in the buffers between the two is no part of what the server has read.
    assert sent < 32 << 20


def test_those_that_dawdle(demo: Generator) -> None:
    with serving(demo, limits=Limits(body_s=0.3)) as server:
        with connected(server) as silent, connected(server) as half, connected(server) as slow_body:
            half.sendall(b"POST /v1/chat/comp")
            slow_body.sendall(request(b'{"model":', length=1000))
            assert everything(silent) == everything(half) == b""
            assert everything(slow_body).startswith(b"HTTP/1.1 408 ")
        with connected(server) as second:
            # After a good request, the beginning of another
            second.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
            assert second.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
            second.sendall(b"GET /hea")
            assert everything(second) in (b"", b'{"status":"ok"}')
        with connected(server) as ignored:
            # A body that comes though its request is answered
            ignored.sendall(request(length=1 << 30).replace(CHAT.encode(), b"/nowhere"))
            answer = ignored.recv(1 << 16)
            with contextlib.suppress(OSError):
                while True:
                    ignored.sendall(b" ")
                    time.sleep(0.02)
            assert answer.startswith(b"HTTP/1.1 404 ")
        assert server.post(CHAT, HAIKU).status_code == 200


def test_those_that_take_nothing_of_their_answer(demo: Generator, endless: dict[str, Any]) -> None:
    with serving(demo, limits=Limits(body_s=0.5)) as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect((host, int(port)))
            # More than what lies between the two can hold
            body = endless | {"n": 8, "logprobs": True, "top_logprobs": 20}
            connection.sendall(request(json.dumps(body).encode()))
            eventually(lambda: server.service.gate.running == 8)
            eventually(server.is_idle)
            connection.settimeout(30)
            assert b"[DONE]" not in everything(connection)[-1000:]


def test_full(demo: Generator, endless: dict[str, Any], slow: None) -> None:
    with serving(demo, limits=Limits(max_running=2, max_waiting=1)) as server:
        gate = server.service.gate
        answers: list[httpx.Response] = []
        with contextlib.ExitStack() as first_two:
            for _ in range(2):
                first_two.enter_context(streaming(server, endless))
            third = threading.Thread(target=lambda: answers.append(server.post(CHAT, HAIKU)))
            third.start()
            eventually(lambda: gate.waiting == 1)
            refused = server.post(CHAT, HAIKU)
            assert refused.status_code == 429
            assert refused.json()["error"]["type"] == "rate_limit_error"
            assert 1 <= int(refused.headers["retry-after"]) <= 60
            assert httpx.get(f"{server.url}/health").status_code == 200
        third.join()
        assert answers[0].status_code == 200
        eventually(server.is_idle)
        too_many = server.post(CHAT, HAIKU | {"n": 3})
        assert too_many.status_code == 400 and too_many.json()["error"]["param"] == "n"


def test_those_that_leave_the_queue(demo: Generator, endless: dict[str, Any], slow: None) -> None:
    with serving(demo, limits=Limits(max_running=1, max_waiting=5)) as server:
        gate = server.service.gate
        with streaming(server, endless):
            body = json.dumps(HAIKU).encode()
            waiting = [connected(server) for _ in range(3)]
            for connection in waiting:
                connection.sendall(request(body))
            eventually(lambda: gate.waiting == 3)
            waiting[1].close()
            eventually(lambda: gate.waiting == 2)
            gate.close()
            for connection in (waiting[0], waiting[2]):
                answer = everything(connection)
                assert answer.startswith(b"HTTP/1.1 503 ") and b"retry-after" in answer
                connection.close()
            assert server.post(CHAT, HAIKU).status_code == 503
            assert gate.running == 1
        eventually(server.is_idle)


def test_those_that_leave_while_all_of_an_answer_is_written(
    demo: Generator, endless: dict[str, Any], slow: None
) -> None:
    with serving(demo) as server:
        with connected(server) as connection:
            connection.sendall(request(json.dumps(endless | {"stream": False, "n": 2}).encode()))
            eventually(lambda: server.service.gate.running == 2)
        eventually(server.is_idle)


def test_time(demo: Generator, endless: dict[str, Any], slow: None) -> None:
    with serving(demo, limits=Limits(request_s=0.4)) as server:
        answer = server.post(CHAT, endless | {"stream": False})
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "timeout")
        with streaming(server, endless) as parts:
            assert list(parts)[-1]["error"]["code"] == "timeout"
        eventually(server.is_idle)


def test_too_little_memory_is_a_503(demo: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    from candlewick import OutOfMemoryError

    def none_left(*_: Any, **__: Any) -> None:
        raise OutOfMemoryError("2 GB are needed and 1 GB is there")

    with serving(demo) as server:
        monkeypatch.setattr(demo, "stream_tokens", none_left)
        answer = server.post(CHAT, HAIKU)
        assert answer.status_code == 503 and "retry-after" in answer.headers
        assert answer.json()["error"]["message"] == "2 GB are needed and 1 GB is there"
        assert server.is_idle()


def test_no_http_at_all(server: Serving) -> None:
    with connected(server) as connection:
        connection.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)))
        assert everything(connection).startswith(b"HTTP/1.1 400 ")
    assert server.post(CHAT, HAIKU).status_code == 200
