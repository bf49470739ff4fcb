"""`candlewick doctor`: what it finds, what it advises, and what it keeps to itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from make_gguf import tiny_model

from candlewick import _native
from candlewick.cli import checks, golden

# More threads here would only start more programs, which share nothing.
pytestmark = pytest.mark.thread_unsafe(reason="tests programs")


def doctor(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "candlewick", "doctor", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=100)


def test_the_report_is_whole_and_fits_in_80_columns(tmp_path: Path) -> None:
    done = doctor(HF_HOME=str(tmp_path), CANDLEWICK_ISA="")
    assert (done.returncode, done.stderr) == (0, "")
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
    names = [line.split()[1] for line in done.stdout.splitlines() if line.startswith(("ok ", "note "))]
    assert names == ["package", "cpu", "threads", "memory", "cache", "hub", "results", "speed"]
    assert done.stdout.endswith("\nNothing is broken.\n")
    assert f"CANDLEWICK_ISA may name {_native.tiers()[0]}" in done.stdout
    assert not (tmp_path / "hub").exists(), "it looks, and makes nothing"


def test_json_tells_no_secret(tmp_path: Path) -> None:
    secrets = {"HF_TOKEN": "hf_secretsecret", "HTTPS_PROXY": "http://ann:pass1234@proxy.example:3128"}
    done = doctor("--json", HF_HOME=str(tmp_path), HF_HUB_OFFLINE="1", **secrets)
    report = json.loads(done.stdout)
    assert report["broken"] == [] and report["checks"]["hub"]["facts"]["token"] is True
    assert report["checks"]["hub"]["facts"]["proxies"] == ["HTTPS_PROXY=http://proxy.example:3128"]
    assert report["checks"]["hub"]["advice"] == ["unset HF_HUB_OFFLINE to fetch models"]
    assert set(report["checks"]["results"]["facts"]["tiers"]) == set(_native.tiers())
    for text in (done.stdout, done.stderr, doctor(HF_HOME=str(tmp_path), **secrets).stdout):
        assert "secretsecret" not in text and "pass1234" not in text and "ann" not in text.replace("cannot", "")


def test_what_is_broken_is_said_and_the_rest_goes_on() -> None:
    done = doctor("--json", CANDLEWICK_ISA="mmx", HF_ENDPOINT="nowhere")
    report = json.loads(done.stdout)
    assert done.returncode == 1 and report["broken"] == ["cpu", "cache", "hub", "speed"]
    assert "which is no tier" in report["checks"]["cpu"]["says"][0]
    assert "HF_ENDPOINT" in report["checks"]["hub"]["says"][0]
    assert report["checks"]["results"]["status"] == "ok", "each tier is asked for by name"


def test_a_tier_that_computes_wrong_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert golden.run("scalar") is None
    monkeypatch.setattr(golden, "EXPECTED", (*golden.EXPECTED[:-1], 0))
    assert golden.run("scalar") == f"{len(golden.EXPECTED) - 1} of {len(golden.EXPECTED)} ids are right"
    finding = checks.results()
    assert finding.status == checks.BROKEN and "please report this" in finding.advice[-1]
    monkeypatch.setattr(golden, "run", lambda tier: None if tier == "scalar" else "ended with code -4: nothing")
    if len(_native.tiers()) > 1:
        assert checks.results().advice[0] == "set CANDLEWICK_ISA=scalar until it is mended"


def test_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    assert checks.cache().status == checks.OK
    repo = tmp_path / "hub" / "models--owner--name"
    snapshot = repo / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    tiny_model(snapshot / "m.gguf")
    (snapshot / "broken.gguf").write_bytes(b"GGUF")
    finding = checks.cache()
    assert any("owner/name/m.gguf: needs" in text and text.endswith(", fits") for text in finding.says)
    assert any("broken.gguf" in text and "cut short" in text for text in finding.says)
    part = repo / "blobs" / "0123.incomplete"
    part.parent.mkdir()
    part.write_bytes(bytes(2000))
    os.utime(part, (time.time(), time.time() - 3 * 86400))
    finding = checks.cache()
    assert finding.status == checks.NOTE and any("half-written since 3 days ago" in text for text in finding.says)
    assert any("goes on from there" in text for text in finding.advice)
    monkeypatch.setattr(checks, "_is_writable", lambda folder: False)
    finding = checks.cache()
    assert "cannot be written to" in finding.says[0] and any("HF_HUB_CACHE" in text for text in finding.advice)


def test_too_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    for available, status, word in [
        (8_000_000_000, checks.OK, None),
        (3_000_000_000, checks.NOTE, "smaller n_ctx"),
        (1_000_000_000, checks.NOTE, "smaller model"),
        (None, checks.NOTE, None),
    ]:
        monkeypatch.setattr(_native, "available_memory", lambda available=available: available)
        finding = checks.memory()
        assert finding.status == status
        assert word is None or word in finding.advice[0]
