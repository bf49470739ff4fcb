"""A full-size download from a hub on loopback, against `curl` and `sha256sum`.

    python benches/download.py                  # 2.4 GB, three times each
    python benches/download.py --gb 0.5 --runs 5

Prints the seconds of each way, the median and the ratio, and the most memory that the download took. The hub is a
process of its own that hands the file to the kernel (sendfile), so that it is not what is measured.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FETCH = """
from candlewick import models
print(models.Hub(progress=False).fetch("owner/name", "model.gguf")[0])
"""


def write_model(path: Path, n_bytes: int) -> str:
    """A valid GGUF with one tensor of that size; returns its SHA-256."""
    n = n_bytes // 32 * 32
    header = b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + struct.pack("<Q", 7) + b"weights"
    header += struct.pack("<IQIQ", 1, n, 24, 0)
    header += bytes(-len(header) % 32)
    sha = hashlib.sha256(header)
    block = os.urandom(1 << 20)
    with path.open("wb") as file:
        file.write(header)
        for at in range(0, n, len(block)):
            # No two blocks alike, for disks that compress.
            piece = (struct.pack("<Q", at) + block[8:])[: n - at]
            file.write(piece)
            sha.update(piece)
    return sha.hexdigest()


class Hub(BaseHTTPRequestHandler):
    """HEAD of the file, a redirect to it, and its bytes."""

    protocol_version = "HTTP/1.1"
    path_of_file: Path
    sha: str

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        size = self.path_of_file.stat().st_size
        headers = {"Content-Length": "0"}
        if self.path.startswith("/owner/name/resolve/"):
            self.send_response(302)
            headers |= {
                "X-Repo-Commit": COMMIT,
                "X-Linked-ETag": f'"{self.sha}"',
                "X-Linked-Size": str(size),
                "Location": "/storage",
            }
        else:
            start = int(self.headers.get("Range", "bytes=0-")[6:].partition("-")[0])
            self.send_response(206 if start else 200)
            headers["Content-Length"] = str(size - start)
            if start:
                headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET" and "Location" not in headers:
            self.wfile.flush()
            with self.path_of_file.open("rb") as file:
                self.connection.sendfile(file, start)


def serve(path: Path, sha: str) -> None:
    """Serves until killed; prints the port."""
    Hub.path_of_file, Hub.sha = path, sha
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.daemon_threads = True
    print(server.server_address[1], flush=True)
    server.serve_forever()


def timed(command: list[str], variables: dict[str, str]) -> tuple[float, list[int]]:
    """Seconds, and the resident kilobytes every 50 ms (where /proc tells)."""
    began = time.perf_counter()
    process = subprocess.Popen(command, env=variables, stdout=subprocess.DEVNULL)
    samples: list[int] = []

    def sample() -> None:
        while process.poll() is None:
            try:
                status = Path(f"/proc/{process.pid}/status").read_text()
            except OSError:
                return
            samples.extend(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon"))
            time.sleep(0.05)

    thread = threading.Thread(target=sample)
    thread.start()
    code = process.wait()
    seconds = time.perf_counter() - began
    thread.join()
    if code != 0:
        raise SystemExit(f"{command[0]} failed")
    return seconds, samples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--gb", type=float, default=2.4, help="size of the file (default: %(default)s)")
    parser.add_argument("--runs", type=int, default=3, help="runs of each way (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="where the files go: twice the size is needed (default: temporary)")
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return serve(Path(options.serve[0]), options.serve[1])

    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = Path(temporary)
        model = folder / "model.gguf"
        sha = write_model(model, int(options.gb * 1e9))
        command = [sys.executable, __file__, "--serve", str(model), sha]
        hub = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert hub.stdout is not None
            url = f"http://127.0.0.1:{int(hub.stdout.readline())}"
            variables = os.environ | {"HF_ENDPOINT": url, "HF_HUB_CACHE": str(folder / "cache"), "NO_PROXY": "*"}
            out = folder / "out"
            curl = f"curl -sSL --noproxy '*' -o {out} {url}/owner/name/resolve/main/model.gguf && sha256sum {out}"
            ways = {"curl + sha256sum": ["sh", "-c", curl], "candlewick": [sys.executable, "-c", FETCH]}
            seconds: dict[str, list[float]] = {name: [] for name in ways}
            peaks: list[tuple[int, int]] = []
            for _ in range(options.runs):
                for name, way in ways.items():
                    out.unlink(missing_ok=True)
                    shutil.rmtree(folder / "cache", ignore_errors=True)
                    os.sync()
                    taken, samples = timed(way, variables)
                    seconds[name].append(taken)
                    if name == "candlewick" and samples:
                        half = len(samples) // 2
                        peaks.append((max(samples[:half]), max(samples)))
        finally:
            hub.kill()
            hub.wait()

    size = options.gb * 1e9
    for name, taken in seconds.items():
        median = statistics.median(taken)
        each = " ".join(f"{t:.2f}" for t in taken)
        print(f"{name:<18} {median:6.2f} s  {size / median / 1e6:6.0f} MB/s   ({each})")
    ratio = statistics.median(seconds["candlewick"]) / statistics.median(seconds["curl + sha256sum"])
    print(f"candlewick takes {ratio:.2f} times as long")
    for half, whole in peaks:
        print(f"memory of its own: at most {half / 1000:.1f} MB in the first half, {whole / 1000:.1f} MB in all")


if __name__ == "__main__":
    main()
