"""A crowd at the server's door: 200 clients for a minute, well-behaved and not, and nothing of them left afterwards.

    python scripts/test_load.py                       # as `make test-load` does
    python scripts/test_load.py --clients 20 --seconds 5

The server is `candlewick serve --model demo` in a process of its own. Two in five clients read their answer to the end;
a third disconnect somewhere on the way; the others send garbage, begin a request and say no more, or send bodies of
50 MB.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import json
import os
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import IO

TOPICS = ["rain", "ice hockey", "an old dog", "the sea", "fog", "a train", "snow", "tea", "bees", "an owl"]
BIG = 50_000_000
# The demo model's end tokens, forbidden.
NEVER_ENDS = {"1531": -100, "1532": -100, "1534": -100}
# Those that compute, tokenize and wait; however many clients there are.
MAX_THREADS = 20
# What the interpreter's heap may gain beyond what it has after the warm-up.
GROWTH_BYTES = 64 << 20


class Client:
    """One of many: does one thing after another, each drawn at random."""

    def __init__(self, port: int, rng: random.Random, seen: collections.Counter[str]) -> None:
        self._port = port
        self._rng = rng
        self._seen = seen

    async def run(self, until: float) -> None:
        acts: list[tuple[Callable[[], Awaitable[None]], float]] = [
            (self.listens, 0.42),
            (self.leaves, 0.33),
            (self.sends_garbage, 0.12),
            (self.says_no_more, 0.10),
            (self.sends_too_much, 0.03),
        ]
        while time.monotonic() < until:
            [act] = self._rng.choices([act for act, _ in acts], [share for _, share in acts])
            with contextlib.suppress(ConnectionError):
                await asyncio.wait_for(act(), 120)

    async def listens(self) -> None:
        streams = self._rng.random() < 0.7
        status, body = await self._ask(self._request(streams))
        self._seen[f"listened {status}"] += 1
        if status in (429, 503):
            await asyncio.sleep(self._rng.random() * 2)
            return
        assert status == 200, (status, body)
        if streams:
            assert body.rstrip().endswith(b"data: [DONE]"), body[-300:]
        else:
            assert json.loads(body)["choices"][0]["finish_reason"] in ("stop", "length"), body

    async def leaves(self) -> None:
        reader, writer = await self._connect()
        request = _post(self._request(streams=self._rng.random() < 0.7))
        where = self._rng.random()
        writer.write(request if where > 0.2 else request[: self._rng.randrange(len(request))])
        if where > 0.4:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(reader.read(self._rng.randrange(1, 4000)), self._rng.random())
        if self._rng.random() < 0.5:
            # Not a farewell, but a reset.
            socket_ = writer.get_extra_info("socket")
            socket_.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.close()
        self._seen["left"] += 1

    async def sends_garbage(self) -> None:
        noise = self._rng.randbytes(self._rng.randrange(1, 2000))
        body = json.dumps(self._request(streams=True)).encode()
        broken = bytearray(body)
        for _ in range(self._rng.randrange(1, 6)):
            broken[self._rng.randrange(len(broken))] = self._rng.randrange(256)
        garbage = self._rng.choice([noise, _post(noise), _post(bytes(broken)), _post(b"[" * 100_000)])
        reader, writer = await self._connect()
        writer.write(garbage)
        if garbage is noise:
            # It may look like the beginning of a request, whose rest would be waited for.
            writer.write_eof()
        answer = await reader.read(20)
        writer.close()
        status = _status(answer)
        self._seen[f"garbage {status}"] += 1
        assert status is None or status in (200, 429, 503) or 400 <= status < 500, (status, garbage)

    async def says_no_more(self) -> None:
        reader, writer = await self._connect()
        request = _post(self._request(streams=False))
        writer.write(request[: self._rng.randrange(len(request) - 1)])
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(reader.read(), self._rng.random() * 5)
        writer.close()
        self._seen["said no more"] += 1

    async def sends_too_much(self) -> None:
        reader, writer = await self._connect()
        writer.write(_post(b"", length=BIG))
        chunk = b" " * (1 << 16)
        status = None
        with contextlib.suppress(ConnectionError):
            for _ in range(BIG // len(chunk)):
                writer.write(chunk)
                await writer.drain()
                if reader.at_eof():
                    break
        with contextlib.suppress(ConnectionError):
            status = _status(await reader.read(20))
        writer.close()
        self._seen[f"too much {status}"] += 1
        assert status in (None, 413, 503), status

    def _request(self, streams: bool) -> dict[str, object]:
        rng = self._rng
        body: dict[str, object] = {
            "model": "demo",
            "messages": [{"role": "user", "content": f"Write a haiku about {rng.choice(TOPICS)}"}],
            "stream": streams,
            "max_tokens": rng.choice([5, 40, 200]),
            "temperature": rng.choice([0, 1, 1.5]),
        }
        if rng.random() < 0.1:
            body["n"] = rng.randrange(1, 4)
        if rng.random() < 0.1:
            body |= {"logprobs": True, "top_logprobs": 5}
        if rng.random() < 0.1:
            schema = {"type": "object", "properties": {"topic": {"type": "string"}}, "required": ["topic"]}
            body["response_format"] = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        if rng.random() < 0.05:
            # Never ends by itself; often somebody leaves.
            body |= {"logit_bias": NEVER_ENDS, "max_tokens": 900}
        return body

    async def _ask(self, body: dict[str, object]) -> tuple[int, bytes]:
        reader, writer = await self._connect()
        writer.write(_post(body))
        answer = await reader.read()
        writer.close()
        head, _, rest = answer.partition(b"\r\n\r\n")
        status = _status(answer)
        assert status is not None, "closed without an answer"
        return status, _unchunked(rest) if b"chunked" in head.lower() else rest

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self._port)


def _post(body: dict[str, object] | bytes, length: int | None = None) -> bytes:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        b"connection: close\r\ncontent-length: %d\r\n\r\n" % (len(content) if length is None else length)
    ) + content


def _status(answer: bytes) -> int | None:
    found = re.match(rb"HTTP/1\.1 (\d{3})", answer)
    return int(found[1]) if found else None


def _unchunked(body: bytes) -> bytes:
    parts = []
    while body:
        size, _, body = body.partition(b"\r\n")
        n = int(size, 16)
        parts.append(body[:n])
        body = body[n + 2 :]
    return b"".join(parts)


class Server:
    """The process that is tested, and what can be seen of it from outside."""

    def __init__(self, log: IO[bytes]) -> None:
        command = [sys.executable, "-m", "candlewick", "serve", "--model", "demo", "--port", "0"]
        self._log = Path(log.name)
        self.process = subprocess.Popen(command, stderr=log)
        while not (found := re.search(r"Serving on http://127.0.0.1:(\d+)", self.said())):
            assert self.process.poll() is None, self.said()
            time.sleep(0.05)
        self.port = int(found[1])

    def said(self) -> str:
        return self._log.read_text(errors="replace")

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as answer:
            return str(answer.read().decode())

    def metrics(self) -> dict[str, float]:
        lines = [line for line in self.get("/metrics").splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}

    def idle(self) -> tuple[int, int, int]:
        """Waits until nothing runs and no connection is open: bytes in memory, open files and threads then."""
        end = time.monotonic() + 60
        while True:
            now = self.metrics()
            now["candlewick_live_bytes"] = now["candlewick_kv_bytes"] - now["candlewick_kept_bytes"]
            busy = {name: n for name, n in now.items() if re.fullmatch(GAUGES, name) and n}
            files = len(os.listdir(f"/proc/{self.process.pid}/fd"))
            if not busy and self._connections() <= 1:
                break
            assert time.monotonic() < end, f"still busy: {busy}, {self._connections()} connections"
            time.sleep(0.1)
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        resident = int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024  # type: ignore[index]
        return resident, files, len(os.listdir(f"/proc/{self.process.pid}/task"))

    def _connections(self) -> int:
        n = 0
        for fd in Path(f"/proc/{self.process.pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                n += os.readlink(fd).startswith("socket:")
        # The listener, and the two ends by which a loop wakes itself.
        return n - 3


# Counts that must come back to zero.
GAUGES = r"candlewick_(answers_running|requests_waiting|streams_running|streams_waiting|live_bytes)"


async def crowd(port: int, n: int, seconds: float, seed: int) -> collections.Counter[str]:
    seen: collections.Counter[str] = collections.Counter()
    until = time.monotonic() + seconds
    clients = [Client(port, random.Random(f"{seed} {i}"), seen) for i in range(n)]
    await asyncio.gather(*(client.run(until) for client in clients))
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = parser.parse_args()
    print(f"{options.clients} clients for {options.seconds:g} s, seed {options.seed}")
    with tempfile.NamedTemporaryFile(suffix=".log") as log:
        server = Server(log)  # type: ignore[arg-type]
        try:
            check(server, options)
        except BaseException:
            print(server.said()[-5000:])
            raise
        finally:
            server.process.kill()
            server.process.wait()


def check(server: Server, options: argparse.Namespace) -> None:
    # What is made once, such as threads and tables for grammars, is made by as many clients.
    asyncio.run(crowd(server.port, options.clients, max(options.seconds / 6, 2), options.seed))
    before = server.idle()
    seen = asyncio.run(crowd(server.port, options.clients, options.seconds, options.seed + 1))
    started = time.monotonic()
    asyncio.run(crowd_of_one(server.port))
    answered_s = time.monotonic() - started
    after = server.idle()
    for what, n in sorted(seen.items()):
        print(f"  {what:<20}{n:>8,}")
    print(f"  one more was answered after {answered_s:.2f} s")
    for what, a, b in zip(("bytes in memory", "open files", "threads"), before, after, strict=True):
        print(f"  {what:<20}{a:>14,} before, {b:>14,} after")
    statuses = {
        int(found[1]): int(n)
        for name, n in server.metrics().items()
        if (found := re.search(r'path="/v1/chat/completions",status="(\d+)"', name))
    }
    print(f"  answers by status: {statuses}")
    assert not [status for status in statuses if status >= 500 and status != 503], statuses
    assert seen["listened 200"] > options.clients, "too few were answered"
    assert after[0] - before[0] < GROWTH_BYTES, "memory has grown"
    assert after[1] <= before[1], "files are left open"
    assert after[2] <= MAX_THREADS, "threads are left"
    assert "Traceback" not in server.said(), "an error in the server"
    asyncio.run(ends(server))


async def crowd_of_one(port: int) -> None:
    client = Client(port, random.Random(0), collections.Counter())
    status, body = await client._ask({"model": "demo", "messages": [{"role": "user", "content": "Hi"}]})
    assert status == 200, body


async def ends(server: Server) -> None:
    """SIGTERM in the middle: what runs is finished."""
    client = Client(server.port, random.Random(0), collections.Counter())
    body = {"model": "demo", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 900, "stream": True}
    never = {"logit_bias": NEVER_ENDS}
    asked = [asyncio.create_task(client._ask(body | never)) for _ in range(8)]
    while server.metrics()["candlewick_answers_running"] < 8:
        await asyncio.sleep(0)
    server.process.send_signal(signal.SIGTERM)
    for status, answer in await asyncio.gather(*asked):
        assert status == 200 and answer.rstrip().endswith(b"data: [DONE]"), (status, answer[-300:])
    assert server.process.wait(60) == 0
    print("  SIGTERM: 8 answers were finished")


if __name__ == "__main__":
    main()
