"""`candlewick bench` and benches/compare.py: what they report and how they end. No time is judged."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from machine import needs_candle
from make_gguf import tiny_model

from candlewick import Generator, _native
from candlewick.cli.bench import number

# More threads here would only start more programs, which share nothing.
pytestmark = pytest.mark.thread_unsafe(reason="tests programs")

BENCH = [sys.executable, "-m", "candlewick", "bench"]
COMPARE = Path(__file__).parents[1] / "benches" / "compare.py"


def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "80", **environment}
    return subprocess.run([*BENCH, *arguments], capture_output=True, encoding="utf-8", env=environment, timeout=100)


def check_spread(spread: dict[str, Any], n: int) -> None:
    assert len(spread["runs"]) == n and 0 < spread["min"] <= spread["median"] <= spread["max"]


def test_json(demo: Generator) -> None:
    done = run("demo", "--quick", "--json", "--threads", "2", "--repeat", "2", "--kv-type", "q8_0")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["engine"], result["kv_type"], result["n_threads"], result["repeat"]) == ("native", "q8_0", 2, 2)
    assert result["isa"] == result["limits"]["tier"] == demo.info["isa"] and "CPU" in result["cpu"]
    for key in ("load_s", "ttft_s"):
        check_spread(result[key], 2)
    assert [entry["tokens"] for entry in result["prefill"]] == [32, 128]
    assert [entry["context"] for entry in result["decode"]] == [0]
    for entry in (*result["prefill"], *result["decode"]):
        check_spread(entry["tokens_per_s"], 2)
    assert result["decode"][0]["of_read"] is None, "a read of memory bounds no model that fits in a cache"
    for key in ("read_huge_gb_per_s", "read_small_gb_per_s"):
        check_spread(result["limits"][key], 2)
    if result["isa"] != "scalar":
        check_spread(result["limits"]["products_g_per_s"], 2)
        assert all(entry["of_products"] > 0 for entry in result["prefill"])
    # Every matrix but the embedding, which this file has beside the output.
    assert 0.5 < result["model"]["weight_bytes_per_token"] / result["model"]["file_bytes"] < 1
    if sys.platform != "win32":
        assert result["memory"]["of_file"] > 1


@needs_candle
def test_the_report_fits_and_the_picture_is_one(tmp_path: Path) -> None:
    picture = tmp_path / "speed.svg"
    done = run("demo", "--quick", "--repeat", "2", "--engine", "candle", "--svg", picture)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    for text in ("candle engine, tier", "prompt of 128", "decode at context 0", "from the caches", "plain read, small"):
        assert text in done.stdout
    assert "The context ends" not in done.stdout
    root = ElementTree.fromstring(picture.read_text(encoding="utf-8"))
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "demo.gguf, 3.67 MB" in texts and "128" in texts


def test_what_a_short_context_has_no_room_for_is_left_out(tmp_path: Path) -> None:
    path = tiny_model(tmp_path / "m.gguf", context=40)
    done = run(path, "--quick", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert [entry["tokens"] for entry in result["prefill"]] == [32]
    assert result["left_out"] == {"prompts": [128], "contexts": []}
    memory = result["memory"]
    assert memory["prompt_tokens"] + memory["completion_tokens"] <= 40


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ([], 2, "the following arguments are required: MODEL"),
        (["nope.gguf"], 1, "candlewick: no such file or folder: 'nope.gguf'"),
        (["demo", "--repeat", "0"], 1, "candlewick: --repeat is 0, expected 1 to 1000"),
        (["demo", "--threads", "0"], 1, "candlewick: n_threads is 0"),
        (["demo", "--engine", "steam"], 1, 'candlewick: engine is "steam"'),
        (["demo", "--kv-type", "q1"], 1, 'candlewick: kv_type is "q1"'),
        (["demo", "--svg", "no/such/folder/x.svg"], 1, "No such file or directory: 'no/such/folder/x.svg'"),
    ],
)
def test_mistakes(arguments: list[str], code: int, text: str) -> None:
    done = run(*arguments)
    assert done.returncode == code and text in done.stderr and done.stdout == ""
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="signals are otherwise there")
@pytest.mark.parametrize("after_s", [0.7, 1.5, 3.0])
def test_ctrl_c(after_s: float, tmp_path: Path) -> None:
    picture = tmp_path / "x.svg"
    process = subprocess.Popen(
        [*BENCH, "demo", "--repeat", "1000", "--svg", picture], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    time.sleep(after_s)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode in (130, -signal.SIGINT), err
    # Earlier than this, the interpreter itself may still be starting.
    if process.returncode == 130:
        assert out == b"" and b"Traceback" not in err
    assert not picture.exists()


def test_numbers_have_three_digits() -> None:
    assert [number(x) for x in (0.123, 1.234, 12.34, 123.4, 12345)] == ["0.12", "1.23", "12.3", "123", "12,345"]


def test_the_limits_can_be_measured() -> None:
    assert _native.read_bytes() >= 64 << 20
    assert _native.read_rate(2, 1, False) > 0
    rate = _native.multiply_rate(1)
    assert rate is None or rate > 0


@needs_candle
def test_compare(demo: Generator) -> None:
    path = demo.info["path"]
    command = [sys.executable, COMPARE, path, "--systems", "native", "original", "llama", "--prompts", "8", "16"]
    command += ["--decode-tokens", "2", "--rounds", "2", "--peer", "mistralrs=/no/such/python"]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert set(result["absent"]) >= {"mistralrs"} and "/no/such/python" in result["absent"]["mistralrs"]
    for system in ("native", "original"):
        for name in ("prompt of 8, tokens/s", "prompt of 16, tokens/s", "decode, tokens/s"):
            check_spread(result["systems"][system][name], 2)
            assert result["ratios"][system][name] > 0
    assert result["ratios"]["native"]["decode, tokens/s"] == 1
