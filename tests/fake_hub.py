"""A small hub on loopback, in the style of the real one, that misbehaves on demand.

    with FakeHub() as hub:
        hub.add("owner/name", {"model.gguf": data})
        hub.plan("data", cut(1000), status(500))       # the first two requests for bytes go wrong
        ...
        assert hub.sent("data") == len(data)

Three servers: the hub itself, the storage that it redirects to for large files (another port), and a foreign host
(another name). Each request is of one kind and takes the next fault planned for that kind:

    head      HEAD of a file at the hub: commit, etag, size
    resolve   GET of a file at the hub: a redirect to the storage, or the bytes of a small file
    data      GET at the storage
    api       the list of files
"""

from __future__ import annotations

import hashlib
import json
import random
import ssl
import struct
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

SMALL = 10_000
"""Files below this are not kept as LFS: the hub sends them itself, and their etag is git's."""
CHUNK = 16 << 10


@dataclass(frozen=True)
class Fault:
    """What is different about one answer."""

    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    cut: int | None = None
    """Close the connection after this many bytes of the body."""
    stall: int | None = None
    """Send nothing more after this many bytes (-1: not even a head), until the hub is closed."""
    wrong: bool = False
    """Send other bytes of the same length."""
    longer: int = 0
    """Announce, and send, this many bytes more."""
    no_range: bool = False
    """Send the whole file whatever is asked for."""
    rate: float | None = None
    """Bytes per second."""
    chunk: int = CHUNK
    """Bytes sent at a time."""


def cut(n: int) -> Fault:
    return Fault(cut=n)


def stall(n: int) -> Fault:
    return Fault(stall=n)


def slow(rate: float) -> Fault:
    return Fault(rate=rate)


def drip(rate: float) -> Fault:
    """A byte at a time, and nothing that a timeout of silence would notice."""
    return Fault(rate=rate, chunk=1)


def status(code: int, **headers: str) -> Fault:
    return Fault(status=code, headers={name.replace("_", "-"): value for name, value in headers.items()})


def redirect(to: str) -> Fault:
    return status(302, Location=to)


GATED = status(403, X_Error_Code="GatedRepo", X_Error_Message="Access to model owner/name is restricted.")
NO_REPO = status(401, X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")


@dataclass
class Request:
    kind: str
    method: str
    path: str
    headers: dict[str, str]
    status: int = 0
    sent: int = 0
    """Bytes of the body that went out."""


@dataclass
class Repo:
    files: dict[str, bytes]
    commit: str
    revisions: set[str]


class FakeHub:
    """See the module."""

    def __init__(self, certificate: ssl.SSLContext | None = None) -> None:
        self.repos: dict[str, Repo] = {}
        self.requests: list[Request] = []
        self.closed = threading.Event()
        self._plans: dict[str, deque[Fault]] = {}
        self._always: dict[str, Fault] = {}
        self._lock = threading.Lock()
        self._servers = [_Server(self, name) for name in ("hub", "storage", "foreign")]
        scheme = "http"
        if certificate is not None:
            scheme = "https"
            for server in self._servers:
                server.socket = certificate.wrap_socket(server.socket, server_side=True)
        hub, storage, foreign = (server.server_address[1] for server in self._servers)
        self.port = hub
        self.url = f"{scheme}://127.0.0.1:{hub}"
        self.storage = f"{scheme}://127.0.0.1:{storage}"
        self.foreign = f"{scheme}://localhost:{foreign}"

    def __enter__(self) -> FakeHub:
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closed.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def add(self, repo: str, files: dict[str, bytes], revisions: tuple[str, ...] = ("main",)) -> str:
        """Adds a repository, or a new commit of one; returns the commit."""
        text = repr((repo, sorted((name, hashlib.sha1(data).hexdigest()) for name, data in files.items())))
        commit = hashlib.sha1(text.encode()).hexdigest()
        self.repos[repo] = Repo(dict(files), commit, {*revisions, commit})
        return commit

    def plan(self, kind: str, *faults: Fault, always: Fault | None = None) -> None:
        """The next requests of this kind get these faults, one each; all after them get ``always``."""
        self._plans[kind] = deque(faults)
        if always is not None:
            self._always[kind] = always
        else:
            self._always.pop(kind, None)

    def fault(self, kind: str) -> Fault:
        with self._lock:
            planned = self._plans.get(kind)
            return planned.popleft() if planned else self._always.get(kind, Fault())

    def of(self, *kinds: str) -> list[Request]:
        """The requests of these kinds so far, or all."""
        return [r for r in list(self.requests) if not kinds or r.kind in kinds]

    def sent(self, *kinds: str) -> int:
        """Bytes of bodies that went out."""
        return sum(r.sent for r in self.of(*kinds))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, hub: FakeHub, name: str) -> None:
        self.hub = hub
        self.name = name
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # Clients that break off are what is tested here.


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        hub = self.server.hub
        path = unquote(urlsplit(self.path).path)
        if path.startswith("/api/"):
            kind = "api"
        elif self.server.name == "hub":
            kind = "head" if self.command == "HEAD" else "resolve"
        else:
            kind = "data" if self.server.name == "storage" else "foreign"
        self.record = Request(kind, self.command, self.path, {k.lower(): v for k, v in self.headers.items()})
        hub.requests.append(self.record)
        fault = hub.fault(kind)
        if fault.stall == -1:
            hub.closed.wait()
            self.close_connection = True
        elif fault.status is not None or fault.body is not None:
            body = fault.body if fault.body is not None else b"no\n"
            self._send(fault.status or 200, body, fault.headers, fault)
        elif kind == "api":
            self._api(path, fault)
        elif kind in ("head", "resolve"):
            self._file(path, fault)
        else:
            sha = parse_qs(urlsplit(self.path).query)["sha"][0]
            data = next(d for r in hub.repos.values() for d in r.files.values() if _sha256(d) == sha)
            self._bytes(data, {}, fault)

    def _api(self, path: str, fault: Fault) -> None:
        name, _, revision = path.removeprefix("/api/models/").partition("/revision/")
        repo = self.server.hub.repos.get(name)
        if repo is None:
            return self._send(404, b"", {"X-Error-Code": "RepoNotFound"}, fault)
        if revision not in repo.revisions:
            return self._send(404, b"", {"X-Error-Code": "RevisionNotFound"}, fault)
        siblings = [{"rfilename": name, "size": len(data)} for name, data in repo.files.items()]
        body = json.dumps({"id": name, "sha": repo.commit, "siblings": siblings}).encode()
        self._send(200, body, {"Content-Type": "application/json"}, fault)

    def _file(self, path: str, fault: Fault) -> None:
        hub = self.server.hub
        name, _, rest = path[1:].partition("/resolve/")
        repo = hub.repos.get(name)
        if repo is None:
            return self._send(404, b"", {"X-Error-Code": "RepoNotFound"}, fault)
        revision = next((r for r in repo.revisions if rest.startswith(f"{r}/")), None)
        if revision is None:
            return self._send(404, b"", {"X-Error-Code": "RevisionNotFound"}, fault)
        data = repo.files.get(rest.removeprefix(f"{revision}/"))
        if data is None:
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": repo.commit}, fault)
        headers = {"X-Repo-Commit": repo.commit}
        if len(data) < SMALL:
            headers["ETag"] = f'"{_git_sha1(data)}"'
            return self._bytes(data, headers | fault.headers, fault)
        sha = _sha256(data)
        headers |= {
            "X-Linked-ETag": f'"{sha}"',
            "X-Linked-Size": str(len(data)),
            "Location": f"{hub.storage}/blob?sha={sha}&signature=s",
        }
        return self._send(302, b"Found", headers | fault.headers, fault)

    def _bytes(self, data: bytes, headers: dict[str, str], fault: Fault) -> None:
        start = 0
        wanted = self.headers.get("Range", "")
        if fault.wrong:
            data = bytes(len(data))
        data += bytes(fault.longer)
        if wanted.startswith("bytes=") and not fault.no_range:
            first, _, last = wanted[6:].partition("-")
            start, end = int(first), min(int(last) + 1, len(data)) if last else len(data)
            if start >= len(data):
                return self._send(416, b"", {"Content-Range": f"bytes */{len(data)}"}, fault)
            headers = headers | {"Content-Range": f"bytes {start}-{end - 1}/{len(data)}"}
            return self._send(206, data[start:end], headers, fault)
        return self._send(200, data, headers, fault)

    def _send(self, code: int, body: bytes, headers: dict[str, str], fault: Fault) -> None:
        self.record.status = code
        self.send_response(code)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        began = time.monotonic()
        stop = min((n for n in (fault.cut, fault.stall) if n is not None), default=len(body))
        for at in range(0, min(stop, len(body)), fault.chunk):
            chunk = body[at : min(at + fault.chunk, stop)]
            self.wfile.write(chunk)
            self.record.sent += len(chunk)
            if fault.rate is not None:
                ahead = self.record.sent / fault.rate - (time.monotonic() - began)
                if ahead > 0 and self.server.hub.closed.wait(ahead):
                    break
        if fault.stall is not None:
            self.server.hub.closed.wait()
        if stop < len(body):
            self.close_connection = True


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


REPO = "owner/name"


def environment(hub: FakeHub, folder: Path) -> dict[str, str | None]:
    """The variables of a program that uses this hub and keeps its files below ``folder``; None is not set."""
    cleared = (
        "HF_TOKEN HUGGING_FACE_HUB_TOKEN HF_TOKEN_PATH HF_HUB_CACHE HUGGINGFACE_HUB_CACHE HF_HUB_OFFLINE "
        "TRANSFORMERS_OFFLINE HF_HUB_DISABLE_SYMLINKS HF_HUB_DISABLE_PROGRESS_BARS HF_HUB_DISABLE_IMPLICIT_TOKEN "
        "HTTP_PROXY http_proxy HTTPS_PROXY https_proxy ALL_PROXY all_proxy NO_PROXY no_proxy"
    ).split()
    return dict.fromkeys(cleared) | {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(folder / "hf"),
        "HF_HUB_ETAG_TIMEOUT": "5",
        "HF_HUB_DOWNLOAD_TIMEOUT": "1",
        "CANDLEWICK_DOWNLOAD_RETRIES": "3",
    }


def gguf(n_bytes: int = 1_000_000, seed: int = 0) -> bytes:
    """A valid GGUF of this size (a multiple of 32), with one tensor of random bytes and no model."""
    n = (n_bytes - 64) // 32 * 32
    header = b"GGUF" + struct.pack("<IQQ", 3, 1, 0)
    name = b"weights"
    header += struct.pack("<Q", len(name)) + name + struct.pack("<IQIQ", 1, n, 24, 0)  # 24 is I8
    header += bytes(-len(header) % 32)
    return header + random.Random(seed).randbytes(n)
