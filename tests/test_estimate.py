"""What a model will take, told from its header: the same as when it is loaded, and no more is read for it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_hub import GATED, REPO, FakeHub, Fault, cut, environment, redirect, status
from make_gguf import Vocab, small_vocab, tiny_model

from candlewick import DownloadError, Generator, InvalidRequestError, ModelFormatError, ModelNotFoundError, estimate

# More threads here would share one hub and its plans.
pytestmark = pytest.mark.thread_unsafe(reason="counts the requests of all threads")

FILE = "model-q4.gguf"
BIG = dict(embd=256, ffn=1024, layers=4, heads=8)


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 12 MB whose header ends within the first megabyte."""
    return tiny_model(tmp_path_factory.mktemp("big") / FILE, **BIG)


@pytest.fixture(scope="module")
def wordy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A header of several megabytes, most of it vocabulary."""
    return tiny_model(tmp_path_factory.mktemp("wordy") / FILE, embd=32, metadata={"candlewick.note": "x" * 5_000_000})


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with FakeHub() as hub:
        for name, value in environment(hub, tmp_path).items():
            if value is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, value)
        yield hub


def cached(folder: Path) -> list[str]:
    return [str(path) for path in (folder / "hf").rglob("*") if path.is_file()]


@pytest.mark.parametrize("kv_type", ["f32", "f16", "q8_0"])
@pytest.mark.parametrize(
    "change", [{}, {"kv_heads": 2}, {"tied": True}, {"split_qkv": True}, {"dtype": "Q8_0"}], ids=str
)
def test_the_estimate_is_what_loading_says(tmp_path: Path, change: dict, kv_type: str) -> None:
    path = tiny_model(tmp_path / "m.gguf", embd=256, heads=4, **change)
    found = Generator.estimate(path, n_ctx=200, kv_type=kv_type)
    with Generator(path, n_ctx=200, kv_type=kv_type) as gen:
        info = gen.info
    names = ("name", "path", "architecture", "quantization", "file_bytes", "weight_bytes", "n_ctx", "model_n_ctx")
    assert {name: getattr(found, name) for name in names} == {name: info[name] for name in names}
    assert found.context_bytes == 4 * 64 * info["kv_bytes_per_token"], "pages of 64 tokens"
    assert found.kv_type == info["kv_type"] == kv_type


@pytest.mark.parametrize("window", [1, 40, 64, 65, 200])
def test_the_context_of_a_window_is_what_it_takes_at_most(tmp_path: Path, window: int) -> None:
    """Kept are the tokens a query sees and those that a step adds: measured as the pages of a running text."""
    path = tiny_model(tmp_path / "m.gguf", sliding_window=window, context=2048)
    found = Generator.estimate(path)
    assert found.sliding_window == window
    gen = Generator(path)
    per_page = 64 * gen.info["kv_bytes_per_token"]
    most = 0
    # Streams that end at every length of the last steps leave their pages behind.
    for n in range(700, 1100, 7):
        gen.clear_cache()
        gen.generate([5] * n, max_tokens=1)
        most = max(most, gen.info["kept_bytes"])
    assert most <= found.context_bytes <= most + 3 * per_page
    assert found.context_bytes < Generator.estimate(tiny_model(tmp_path / "plain.gguf", context=2048)).context_bytes / 2


def test_only_the_header_is_read(hub: FakeHub, big: Path, tmp_path: Path) -> None:
    data = big.read_bytes()
    hub.add(REPO, {FILE: data, "model-q8_0.gguf": bytes(20_000)})
    found = Generator.estimate(f"{REPO}:q4", n_ctx=64)
    here = Generator.estimate(big, n_ctx=64)
    assert (found.path, found.filename) == (None, FILE)
    assert (found.weight_bytes, found.context_bytes, found.file_bytes) == (
        here.weight_bytes,
        here.context_bytes,
        len(data),
    )
    assert hub.sent("data") <= 1 << 20 < len(data) / 10
    assert [r.headers["range"] for r in hub.of("data")] == ["bytes=0-1048575"]
    assert cached(tmp_path) == [], "nothing is kept"


def test_a_long_header_comes_in_growing_pieces(hub: FakeHub, wordy: Path) -> None:
    hub.add(REPO, {FILE: wordy.read_bytes() + bytes(64)})
    found = Generator.estimate(REPO)
    assert found.weight_bytes == Generator.estimate(wordy).weight_bytes
    starts = [r.headers["range"] for r in hub.of("data")]
    assert starts == ["bytes=0-1048575", "bytes=1048576-4194303", f"bytes=4194304-{found.file_bytes - 1}"]


def test_faults_on_the_way_are_tried_again(hub: FakeHub, wordy: Path) -> None:
    hub.add(REPO, {FILE: wordy.read_bytes()})
    hub.plan("data", status(503), cut(1000), Fault(no_range=True))
    assert Generator.estimate(REPO).weight_bytes == Generator.estimate(wordy).weight_bytes


@pytest.mark.parametrize(
    ("kind", "fault", "error", "text"),
    [
        ("head", Fault(headers={"X-Linked-Size": str(1 << 60)}), DownloadError, "asked for its size"),
        ("head", Fault(headers={"X-Linked-Size": "5000000"}), DownloadError, "another length than the hub says"),
        ("data", Fault(wrong=True), ModelFormatError, "not a GGUF file"),
        ("data", cut(10), DownloadError, "the connection broke off"),
        ("data", redirect("ftp://127.0.0.1/x"), DownloadError, "is no http or https URL"),
        ("resolve", GATED, DownloadError, "the model is gated"),
    ],
    ids=str,
)
def test_hubs_that_do_not_do_as_they_should(
    hub: FakeHub, big: Path, kind: str, fault: Fault, error: type[Exception], text: str
) -> None:
    hub.add(REPO, {FILE: big.read_bytes()})
    hub.plan(kind, always=fault)
    with pytest.raises(error, match=text):
        Generator.estimate(REPO)
    assert hub.sent("data") < 6 << 20


def test_a_header_without_end_is_given_up(hub: FakeHub) -> None:
    """A string of 100 MB: a model has no such thing, and nobody wants to fetch it to see how large the model is."""
    head = b"GGUF" + (3).to_bytes(4, "little") + (1).to_bytes(8, "little") * 2
    hub.add(REPO, {FILE: head + (100_000_000).to_bytes(8, "little") + bytes(100_000_100)})
    with pytest.raises(DownloadError, match="a header of more than 67108864 bytes"):
        Generator.estimate(REPO)
    assert hub.sent("data") <= 64 << 20


def test_the_token_goes_to_the_hub_alone(hub: FakeHub, big: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.add(REPO, {FILE: big.read_bytes()})
    Generator.estimate(REPO)
    sent = {kind: {r.headers.get("authorization") for r in hub.of(kind)} for kind in ("head", "resolve", "data")}
    assert sent == {"head": {"Bearer hf_secret"}, "resolve": {"Bearer hf_secret"}, "data": {None}}
    hub.requests.clear()
    Generator.estimate(REPO, token=False)
    assert {r.headers.get("authorization") for r in hub.of()} == {None}


def test_what_is_in_the_cache_is_read_there(hub: FakeHub, big: Path) -> None:
    hub.add(REPO, {FILE: big.read_bytes()})
    with pytest.raises(ModelNotFoundError, match="not in the cache"):
        Generator.estimate(REPO, local_files_only=True)
    assert hub.requests == []
    with Generator(REPO, progress=False):
        pass
    hub.requests.clear()
    found = Generator.estimate(REPO, local_files_only=True)
    assert found.path is not None and found.filename == FILE
    assert hub.requests == []
    assert Generator.estimate(REPO).path == found.path
    assert {r.kind for r in hub.of()} == {"head", "api"}


def test_split_models(hub: FakeHub, tmp_path: Path) -> None:
    first = tiny_model(tmp_path / "m.gguf", split_tensors=6)
    parts = sorted(tmp_path.glob("m-*.gguf"))
    hub.add(REPO, {part.name: part.read_bytes() for part in parts})
    here, there = Generator.estimate(first), Generator.estimate(REPO)
    assert there.weight_bytes == here.weight_bytes and there.filename == first.name
    assert there.file_bytes == here.file_bytes == sum(part.stat().st_size for part in parts)
    other = tiny_model(tmp_path / "x.gguf", layers=3, split_tensors=6)
    strange = other.with_name(other.name.replace("00001", "00002")).read_bytes()
    hub.add(REPO, {part.name: strange if i == 1 else part.read_bytes() for i, part in enumerate(parts)})
    with pytest.raises(ModelFormatError, match="belongs to another model"):
        Generator.estimate(REPO)


@pytest.mark.parametrize("n_ctx", [0, -1, 513])
def test_a_context_that_the_model_has_not(tiny_path: Path, n_ctx: int) -> None:
    with pytest.raises(InvalidRequestError, match=f"n_ctx is {n_ctx}, expected 1 to 512"):
        Generator.estimate(tiny_path, n_ctx=n_ctx)


def test_what_to_choose_instead(hub: FakeHub, big: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tiny_model(big.with_name("long.gguf"), context=65536, **BIG)
    whole = Generator.estimate(path)
    assert whole.fits and whole.advice == ()
    weights = whole.weight_bytes

    def context(n_ctx: int | None = None, kv_type: str = "auto") -> int:
        return Generator.estimate(path, n_ctx=n_ctx, kv_type=kv_type).context_bytes

    def advice(n_bytes: int, model: object = path, n_ctx: int | None = None, kv_type: str = "auto") -> tuple[str, ...]:
        monkeypatch.setattr(estimate._native, "available_memory", lambda: n_bytes)
        found = Generator.estimate(model, n_ctx=n_ctx, kv_type=kv_type)
        assert found.fits is (found.advice == ())
        return found.advice

    def room(context_bytes: int) -> int:
        """A tenth of what the weights leave is left to others."""
        return weights + -(-context_bytes // 9) * 10

    assert advice(room(context())) == ()
    assert advice(room(context()) - 10) == ("n_ctx=65472", 'kv_type="q8_0"')
    available = room(context(1024))
    assert advice(available) == ("n_ctx=1024", 'n_ctx=1792 with kv_type="q8_0"')
    # What is advised fits, and no more does.
    for n_ctx, kv_type in ((1024, "auto"), (1792, "q8_0")):
        assert advice(available, n_ctx=n_ctx, kv_type=kv_type) == ()
        assert advice(available, n_ctx=n_ctx + 1, kv_type=kv_type) != ()
    assert advice(1000) == ("a machine with more memory, or a smaller model",)
    hub.add(REPO, {FILE: big.read_bytes(), "m-Q2_K.gguf": bytes(4_000_000), "m-Q3_K.gguf": bytes(5_000_000)})
    assert advice(weights // 2, f"{REPO}:q4", 64) == ("filename='m-Q3_K.gguf' (0.01 GB)",)
    assert advice(4_300_000, f"{REPO}:q4", 64) == ("filename='m-Q2_K.gguf' (0.00 GB)",)


def test_info_does_not_fetch(hub: FakeHub, big: Path, tmp_path: Path) -> None:
    hub.add(REPO, {FILE: big.read_bytes()})
    command = [sys.executable, "-m", "candlewick", "info", REPO]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and f"{FILE}, not fetched yet (" in done.stdout and "it fits" in done.stdout
    assert cached(tmp_path) == []
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=60)
    assert json.loads(done.stdout)["path"] is None


def test_a_vocabulary_counts_as_header(hub: FakeHub, tmp_path: Path) -> None:
    vocab = small_vocab(3000)
    assert isinstance(vocab, Vocab)
    path = tiny_model(tmp_path / FILE, vocab=vocab)
    hub.add(REPO, {FILE: path.read_bytes()})
    assert Generator.estimate(REPO).weight_bytes == Generator.estimate(path).weight_bytes
