"""Looking into a generation: alternatives, logits processors, scores, what a notebook shows, and JSON."""

from __future__ import annotations

import asyncio
import copy
import gc
import json
import math
import pickle
import re
import subprocess
import sys
import weakref
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from make_gguf import Vocab, small_vocab, tiny_model
from reference import Reference

from candlewick import Completion, ContextLengthError, Generator, InvalidRequestError, Score, TopLogprob, shading, trace
from candlewick.processors import Processors

GOLDEN = Path(__file__).parent / "data" / "golden"


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


# --- Log-probabilities


@pytest.mark.parametrize("options", [{}, {"temperature": 0.3, "top_k": 3}, {"logit_bias": {30: 4.0}, "min_p": 0.1}])
def test_logprobs_are_the_models_own(tiny_path: Path, options: dict) -> None:
    """Whatever bias, temperature and filters make of them."""
    gen = Generator(tiny_path, kv_type="f32")
    reference = Reference(tiny_path)
    prompt = [1, 30, 40, 50]
    found = gen.generate(prompt, max_tokens=12, seed=3, ignore_eos=True, logprobs=7, **options)
    assert len(found.tokens) == len(found.logprobs) == 12
    ids = list(prompt)
    for token in found.tokens:
        expected = log_softmax(reference.logits(ids))
        top = np.argsort(-expected, kind="stable")[:7]
        assert [other.id for other in token.top_logprobs] == top.tolist()
        assert np.allclose([other.logprob for other in token.top_logprobs], expected[top], atol=1e-3)
        assert math.isclose(token.logprob, expected[token.id], abs_tol=1e-3)
        ids.append(token.id)


def test_alternatives_have_text_and_bytes(demo: Generator) -> None:
    token = next(demo.stream_tokens("rain", logprobs=20, seed=1))
    assert len(token.top_logprobs) == 20 and len({other.id for other in token.top_logprobs}) == 20
    for other in token.top_logprobs:
        assert isinstance(other, TopLogprob)
        if other.bytes:
            assert other.text == other.bytes.decode(errors="replace")
        else:
            assert re.fullmatch(r"<.*>", other.text), "a special token is shown by its spelling"
    assert sum(math.exp(other.logprob) for other in token.top_logprobs) <= 1 + 1e-5
    # The most that there is.
    assert next(demo.stream_tokens("rain", seed=1)).top_logprobs == ()
    assert next(demo.stream_tokens("rain", seed=1, logprobs=0)).top_logprobs == ()


def test_tokens_are_there_however_the_stream_is_read(demo: Generator) -> None:
    options = {"seed": 5, "logprobs": 2}
    tokens = tuple(demo.stream_tokens("rain", **options))
    stream = demo.stream("rain", **options)
    assert stream.tokens == ()
    next(stream)
    assert stream.tokens == tokens[: len(stream.tokens)] and stream.tokens
    "".join(stream)
    assert stream.tokens == tokens == demo.generate("rain", **options).tokens
    assert "".join(token.text for token in tokens) == stream.text
    assert stream.completion() == demo.generate("rain", **options).__class__(
        **{**vars(stream.completion()), "timings": stream.timings}
    )


def test_a_running_stream_has_no_result(demo: Generator) -> None:
    stream = demo.stream("rain")
    next(stream)
    with pytest.raises(InvalidRequestError, match=r"still runs: read it to its end, or cancel\(\) it"):
        stream.completion()
    stream.cancel()
    assert stream.completion().finish_reason == "cancelled"


@pytest.mark.parametrize("speculative", [False, 8])
def test_alternatives_are_the_same_with_speculation(demo: Generator, speculative: int | bool) -> None:
    prompt = "rain rain rain rain rain rain rain"
    found = demo.generate(prompt, seed=1, logprobs=5, max_tokens=60, ignore_eos=True, speculative=speculative)
    expected = demo.generate(prompt, seed=1, logprobs=5, max_tokens=60, ignore_eos=True, speculative=False)
    assert found.tokens == expected.tokens


# --- Logits processors


def test_a_processor_sees_the_models_logits_and_all_ids_once_and_in_order(tiny_path: Path) -> None:
    gen = Generator(tiny_path, kv_type="f32")
    reference = Reference(tiny_path)
    prompt = [1, 30, 31, 30, 31, 30, 31]
    seen: list[tuple[list[int], np.ndarray]] = []

    def watch(ids: list[int], logits: np.ndarray) -> None:
        assert isinstance(logits, np.ndarray) and logits.dtype == np.float32 and logits.shape == (320,)
        assert logits.flags.writeable
        # Not a copy: what is kept stays what it was at that step.
        seen.append((ids, logits))
        # A list of one's own.
        ids.append(-1)

    options: dict[str, Any] = {"max_tokens": 40, "seed": 2, "ignore_eos": True, "temperature": 0.2}
    plain = gen.generate(prompt, speculative=False, **options)
    for speculative in (False, 6):
        seen.clear()
        found = gen.generate(prompt, logits_processor=watch, speculative=speculative, **options)
        assert found.tokens == plain.tokens
        ids = prompt + [token.id for token in found.tokens]
        assert [at[:-1] for at, _ in seen] == [ids[:n] for n in range(len(prompt), len(ids))]
        for at, logits in seen[::13]:
            assert np.abs(logits - reference.logits(at[:-1])).max() < 1e-3


def test_processors_change_in_place_or_return(demo: Generator) -> None:
    def only(id: int) -> Callable:
        def run(ids: list[int], logits: np.ndarray) -> None:
            logits[:id] = -np.inf
            logits[id + 1 :] = -np.inf

        return run

    def returned(ids: list[int], logits: np.ndarray) -> np.ndarray:
        out = np.full(logits.shape, -np.inf)
        out[400] = 1.0
        return out

    def same(ids: list[int], logits: np.ndarray) -> np.ndarray:
        logits[:] = 0.0
        logits[500] = 100.0
        return logits

    for processor, id in (
        (only(300), 300),
        (returned, 400),
        (same, 500),
        # One after the other: the last has the last word.
        ([returned, same], 500),
        ((same, returned), 400),
        (lambda ids, logits: np.eye(logits.size, dtype=np.float16)[350] * 1000, 350),
    ):
        found = demo.generate("rain", max_tokens=5, logits_processor=processor)
        assert {token.id for token in found.tokens} == {id}
    assert demo.generate("rain", seed=1, logits_processor=[]).text == demo.generate("rain", seed=1).text


def test_processors_come_before_everything_else(demo: Generator) -> None:
    """What they forbid stays forbidden, and bias and filters work on what they leave."""

    def zero(ids: list[int], logits: np.ndarray) -> None:
        logits[:] = 0.0

    found = demo.generate("rain", max_tokens=4, logits_processor=zero, logit_bias={333: 50.0})
    assert {token.id for token in found.tokens} == {333}
    drawn = [t.id for t in demo.stream_tokens("rain", max_tokens=300, logits_processor=zero, top_k=2, seed=1)]
    assert set(drawn) == {0, 1}
    # Probabilities are told as the model has them.
    plain = next(demo.stream_tokens("rain", logprobs=3, seed=1))
    assert (
        next(demo.stream_tokens("rain", logprobs=3, seed=1, logits_processor=zero)).top_logprobs == plain.top_logprobs
    )


class OwnError(Exception):
    pass


def test_what_a_processor_raises_comes_out_of_next(demo: Generator) -> None:
    def fail(ids: list[int], logits: np.ndarray) -> None:
        if len(ids) > 12:
            raise OwnError("enough")

    stream = demo.stream("rain", logits_processor=fail, seed=1)
    with pytest.raises(OwnError, match="enough") as caught:
        list(stream)
    assert any("fail" in entry.name for entry in caught.traceback), "the traceback shows where"
    assert stream.finish_reason == "cancelled" and list(stream) == []
    assert demo.generate("rain", seed=1).text.startswith(stream.text)

    async def read() -> None:
        async for _ in demo.stream("rain", logits_processor=fail, seed=1):
            pass

    with pytest.raises(OwnError):
        asyncio.run(read())

    def interrupt(ids: list[int], logits: np.ndarray) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        demo.generate("rain", logits_processor=interrupt)


@pytest.mark.parametrize(
    ("processor", "text"),
    [
        (lambda ids, logits: logits[:5], r"returned an array of shape \(5,\), expected \(1536,\)"),
        (lambda ids, logits: logits[None], r"returned an array of shape \(1, 1536\), expected \(1536,\)"),
        (lambda ids, logits: np.zeros(1536, dtype=np.int64), "returned an array of int64, expected float32"),
        (lambda ids, logits: np.zeros(1536, dtype=complex), "returned an array of complex128, expected float32"),
        (lambda ids, logits: "yes", "returned an array of <U3, expected float32"),
        (lambda ids, logits: [[0.0], [0.0, 1.0]], "returned list, expected None or an array of 1536 floats"),
        (lambda ids, logits: logits * np.nan, "logits_processor gave NaN for the token id 0, expected a finite number"),
        (lambda ids, logits: logits.__setitem__(7, np.nan), "logits_processor gave NaN for the token id 7"),
        (lambda ids, logits: logits.__setitem__(8, np.inf), "logits_processor gave inf for the token id 8"),
        (lambda ids, logits: logits.astype(float) * 1e300, "logits_processor gave inf for the token id"),
        (lambda ids, logits: logits.fill(-np.inf), "logits_processor gave -inf for every token, expected at least one"),
    ],
)
def test_what_a_processor_must_not_give(demo: Generator, processor: Callable, text: str) -> None:
    stream = demo.stream("rain", logits_processor=processor)
    with pytest.raises(InvalidRequestError, match=text):
        next(stream)
    assert stream.finish_reason == "cancelled"
    assert demo.generate("rain", max_tokens=3).usage.completion_tokens == 3


@pytest.mark.parametrize("processor", [5, "f", [print, None]])
def test_what_is_no_processor(demo: Generator, processor: object) -> None:
    with pytest.raises(TypeError, match=r"logits_processor must be a function f\(ids, logits\) or a list of them, not"):
        demo.stream("rain", logits_processor=processor)


def test_a_processor_may_use_its_generator_and_cancel_its_stream(demo: Generator) -> None:
    texts = []

    def other(ids: list[int], logits: np.ndarray) -> None:
        texts.append(demo.generate("tea", seed=1, max_tokens=3).text)

    assert demo.generate("rain", seed=1, max_tokens=4, logits_processor=other).usage.completion_tokens == 4
    assert set(texts) == {demo.generate("tea", seed=1, max_tokens=3).text}

    def stop(ids: list[int], logits: np.ndarray) -> None:
        if len(ids) > 12:
            stream.cancel()

    stream = demo.stream("rain", logits_processor=stop)
    list(stream)
    assert stream.finish_reason == "cancelled" and 0 < stream.usage.completion_tokens < 10

    def again(ids: list[int], logits: np.ndarray) -> None:
        next(stream)

    stream = demo.stream("rain", logits_processor=again)
    with pytest.raises(InvalidRequestError, match="in the middle of a step in this very thread"):
        next(stream)


def test_a_finished_stream_lets_go_of_its_processor(demo: Generator) -> None:
    class Watch:
        def __call__(self, ids: list[int], logits: np.ndarray) -> None:
            self.logits = logits

    for end in (lambda stream: list(stream), lambda stream: (next(stream), stream.cancel())):
        watch = Watch()
        stream = demo.stream("rain", logits_processor=watch)
        # A cycle through Rust, which no collector sees.
        watch.stream = stream  # type: ignore[attr-defined]
        end(stream)
        gone = weakref.ref(watch)
        del watch, stream
        gc.collect()
        assert gone() is None


def test_without_numpy_it_is_a_memoryview() -> None:
    program = """
import sys
sys.modules["numpy"] = None
import array, candlewick
gen = candlewick.Generator("demo")
def processor(ids, logits):
    assert type(logits) is memoryview and logits.format == "f" and logits.shape == (1536,) and not logits.readonly
    best = max(range(1536), key=logits.__getitem__)
    logits[best] = float("-inf")
def returned(ids, logits):
    return array.array("d", [100.0 if i == 333 else 0.0 for i in range(1536)])
plain = gen.generate("rain", temperature=0, max_tokens=1).tokens[0].id
assert gen.generate("rain", temperature=0, max_tokens=1, logits_processor=processor).tokens[0].id != plain
assert gen.generate("rain", temperature=0, max_tokens=1, logits_processor=[processor, returned]).tokens[0].id == 333
for result, text in (
    (array.array("f", [1.0]), "shape (1,), expected (1536,)"),
    (array.array("i", [1] * 1536), "an array of i, expected float32"),
    ([1.0] * 1536, "returned list, expected None or an array of 1536 floats"),
):
    try:
        gen.generate("rain", logits_processor=lambda ids, logits: result)
    except candlewick.InvalidRequestError as error:
        assert text in str(error), error
    else:
        raise AssertionError(text)
print("done")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout == "done\n", done.stderr


def test_a_kept_view_never_changes(demo: Generator) -> None:
    kept: list[np.ndarray] = []
    processors = Processors(lambda ids, logits: kept.append(logits))
    for step in range(3):
        processors([step], bytearray(np.full(4, step, dtype=np.float32).tobytes()))
    assert [view.tolist() for view in kept] == [[0.0] * 4, [1.0] * 4, [2.0] * 4]
    views: list[np.ndarray] = []
    copies: list[np.ndarray] = []

    def keep(ids: list[int], logits: np.ndarray) -> None:
        views.append(logits)
        copies.append(logits.copy())

    demo.generate("rain", seed=1, logits_processor=keep, logit_bias={5: 3.0}, repetition_penalty=1.5)
    gc.collect()
    assert len(views) > 5 and all(np.array_equal(a, b) for a, b in zip(views, copies, strict=True))


# --- Scores


@pytest.mark.parametrize("engine", ["native", "candle"])
@pytest.mark.parametrize("name", ["gqa-f32", "window-f16", "longrope-f16", "phi2-f16"])
def test_scores_are_those_of_the_reference(name: str, engine: str) -> None:
    """NumPy's forward pass, which test_golden.py's values hold for too, over the whole text at once."""
    path = GOLDEN / f"{name}.gguf"
    gen = Generator(path, kv_type="f32", engine=engine)
    # Candle's engine runs one token at a time.
    for n in (2, 127, 129, 130, 300) if engine == "native" else (2, 130):
        ids = np.random.default_rng(n).integers(3, 300, n).tolist()
        logprobs = log_softmax(Reference(path).logits(ids, last_only=False))
        expected = logprobs[np.arange(n - 1), ids[1:]]
        found = gen.score(ids)
        assert found.ids == tuple(ids) and found.logprobs[0] is None
        assert np.abs(np.array(found.logprobs[1:]) - expected).max() < 2e-3, n
        assert math.isclose(found.perplexity, math.exp(-expected.mean()), rel_tol=1e-3)


def test_golden_logits_score_as_transformers_has_them() -> None:
    """The last token's log-probability, from the logits that transformers gave."""
    golden = np.load(GOLDEN / "gqa-f32.npz")
    gen = Generator(GOLDEN / "gqa-f32.gguf", kv_type="f32")
    for length in golden["prompts"]:
        ids = [*golden[f"prompt_{length}"].tolist(), int(golden[f"greedy_{length}"][0])]
        expected = log_softmax(golden[f"logits_{length}"][0].astype(float))[ids[-1]]
        assert math.isclose(gen.score(ids).logprobs[-1] or 0.0, expected, abs_tol=2e-3)


def test_scores_agree_with_what_generating_tells(demo: Generator) -> None:
    found = demo.generate("rain", seed=3, logprobs=0)
    stream = demo.stream("rain", seed=3)
    prompt = stream._native.prompt_ids
    score = demo.score(prompt + [token.id for token in found.tokens])
    assert np.allclose(score.logprobs[len(prompt) :], found.logprobs, atol=1e-3)


def test_what_can_be_scored(demo: Generator) -> None:
    text = demo.score("a cup of tea — ☕")
    assert "".join(text.tokens).endswith("a cup of tea — ☕")
    assert text.tokens[0] == "<s>" and text.ids[0] == 1
    assert math.isclose(text.logprob, sum(logprob for logprob in text.logprobs if logprob))
    messages = [{"role": "user", "content": "tea"}]
    chat = demo.score(messages)
    assert chat.ids == tuple(demo.stream(messages)._native.prompt_ids)
    assert repr(text).startswith(f"Score({len(text.ids)} tokens, logprob=-")
    assert pickle.loads(pickle.dumps(text)) == text
    assert Score((1, 2), ("a", "b"), (None, -2000.0)).perplexity == math.inf


@pytest.mark.parametrize(
    ("text", "error", "match"),
    [
        ("", InvalidRequestError, "there is one token to score, expected at least 2"),
        ([5], InvalidRequestError, "the first has no probability, because nothing is before it"),
        ([], InvalidRequestError, "the prompt is an empty list"),
        ([5, 1536], InvalidRequestError, "the prompt holds the token id 1536"),
        ([5] * 1025, ContextLengthError, "the prompt has 1025 tokens and the context holds 1024"),
        (5, TypeError, "prompt must be str, a list of messages or a list of token ids, not int"),
        ("\ud800", InvalidRequestError, "lone surrogate"),
    ],
)
def test_what_cannot_be_scored(demo: Generator, text: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        demo.score(text)
    assert len(demo.score([5] * 1024).logprobs) == 1024, "the whole context can be scored"


# --- Notebooks


class Spans(HTMLParser):
    """What a browser makes of it: tags, titles, and the text outside the note."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.titles: list[str] = []
        self.styles: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        found = dict(attributes)
        assert set(found) <= {"class", "style", "title"}
        if tag == "span":
            self.titles.append(found["title"] or "")
            self.styles.append(found["style"] or "")

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Generator:
    """A vocabulary whose pieces are markup."""
    vocab = small_vocab(320)
    pieces = ["<script>alert(1)</script>", '"onmouseover="x', "'><b>", "&amp;", "</div>"]
    tokens = [*vocab.tokens]
    for i, piece in enumerate(pieces):
        tokens[300 + i] = piece
    path = tiny_model(
        tmp_path_factory.mktemp("hostile") / "m.gguf", vocab=Vocab(**{**vars(vocab), "tokens": tokens}), seed=4
    )
    return Generator(path)


def test_markup_in_tokens_is_only_text(hostile: Generator) -> None:
    bias = {300 + i: 12.0 for i in range(5)}
    found = hostile.generate([5, 6], max_tokens=60, seed=1, logit_bias=bias, logprobs=20, ignore_eos=True)
    assert "<script>" in found.text and "</div>" in found.text and "onmouseover" in found.text
    for html in (found._repr_html_(), hostile.score([token.id for token in found.tokens])._repr_html_()):
        assert "<script" not in html
        spans = Spans(html)
        assert set(spans.tags) == {"div", "span"} and spans.tags.count("div") == 1
    assert Spans(found._repr_html_()).text == found.text


def test_html_shows_the_text_shaded_by_probability(demo: Generator) -> None:
    found = demo.generate("rain", seed=1, logprobs=4)
    spans = Spans(found._repr_html_())
    assert spans.text == found.text
    shown = [token for token in found.tokens if token.text]
    assert len(spans.styles) == len(shown)
    tints = [float(re.fullmatch(r"background:rgba\(235,110,0,(.*)\)", style)[1]) for style in spans.styles]  # type: ignore[index]
    for tint, token in zip(tints, shown, strict=True):
        assert math.isclose(tint, 0.6 * (1 - math.exp(token.logprob)), abs_tol=0.006)
    for title, token in zip(spans.titles, shown, strict=True):
        assert title.split("\n")[0].startswith(repr(token.text))
        others = [other for other in token.top_logprobs if other.id != token.id]
        assert len(title.split("\n")) == 1 + len(others)
    assert "http" not in found._repr_html_() and "color:" not in found._repr_html_().replace("background", "")


def test_characters_of_several_tokens_are_shown_whole(tiny: Generator) -> None:
    e = [3 + byte for byte in "é☕".encode()]
    position = iter(e)

    def spell(ids: list[int], logits: np.ndarray) -> None:
        logits[next(position)] = 1000.0

    found = tiny.generate([5, 6], max_tokens=len(e), logits_processor=spell)
    spans = Spans(found._repr_html_())
    assert (spans.text, len(spans.styles)) == ("é☕", 2)
    assert [len(title.split("\n")) for title in spans.titles] == [2, 3]


def test_a_running_stream_shows_what_there_is(demo: Generator) -> None:
    stream = demo.stream("rain", seed=1)
    assert Spans(stream._repr_html_()).text == "(running)"
    next(stream)
    assert Spans(stream._repr_html_()).text == stream.text + "(running)"
    list(stream)
    assert Spans(stream._repr_html_()).text == stream.text


def test_terminals_get_colour_where_a_token_was_not_obvious() -> None:
    items = [shading.Item(1, "sure", math.log(0.95)), shading.Item(2, "", math.log(0.9))]
    items += [shading.Item(3, "é", math.log(0.4)), shading.Item(4, "no", -9.0), shading.Item(5, "first", None)]
    assert "".join(shading.terminal(items, 0)) == "sureénofirst"
    assert list(shading.terminal(items, 256)) == [
        "sure",
        "\x1b[38;5;166mé\x1b[39m",
        "\x1b[38;5;160mno\x1b[39m",
        "first",
    ]
    _, middle, red, _ = shading.terminal(items, 2**24)
    assert middle == "\x1b[38;2;190;78;20mé\x1b[39m" and red == "\x1b[38;2;220;40;40mno\x1b[39m"


@pytest.mark.parametrize(
    ("environment", "terminal", "expected"),
    [
        ({"TERM": "xterm-256color"}, True, 256),
        ({"TERM": "xterm-256color", "COLORTERM": "truecolor"}, True, 2**24),
        ({"TERM": "xterm", "COLORTERM": "24bit"}, True, 2**24),
        ({"TERM": "xterm"}, True, 0),
        ({"TERM": "dumb", "COLORTERM": "truecolor"}, True, 0),
        ({"WT_SESSION": "x"}, True, 2**24),
        ({"TERM": "xterm-256color", "NO_COLOR": "1"}, True, 0),
        ({"TERM": "xterm-256color", "NO_COLOR": ""}, True, 256),
        ({"TERM": "xterm-256color", "COLORTERM": "truecolor"}, False, 0),
    ],
)
def test_how_many_colours(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], terminal: bool, expected: int
) -> None:
    for name in ("TERM", "COLORTERM", "NO_COLOR", "WT_SESSION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    assert shading.colours(sys.stdout) == expected


# --- JSON


def test_results_become_json(demo: Generator) -> None:
    found = demo.generate("rain", seed=1, logprobs=2, stop="\n")
    back = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert (back["text"], back["finish_reason"], back["stop_reason"], back["seed"]) == (found.text, "stop", "\n", 1)
    assert back["usage"]["total_tokens"] == found.usage.prompt_tokens + found.usage.completion_tokens
    assert back["timings"]["ttft_s"] > 0
    content = back["logprobs"]["content"]
    assert len(content) == found.usage.completion_tokens
    # As OpenAI's: bytes that join to the text.
    assert bytes(b for token in content for b in token["bytes"]).decode() == found.text
    assert {"token", "logprob", "bytes", "top_logprobs"} <= set(content[0])
    assert [set(other) for other in content[0]["top_logprobs"]] == [{"id", "token", "logprob", "bytes"}] * 2
    assert demo.generate("rain", seed=1).to_dict()["logprobs"] is None
    assert len(demo.generate("rain", seed=1, logprobs=0).to_dict()["logprobs"]["content"]) > 5


def test_completions_can_be_pickled_and_copied(demo: Generator) -> None:
    found = demo.generate("rain", seed=1, logprobs=2, logits_processor=lambda ids, logits: None)
    for other in (pickle.loads(pickle.dumps(found)), copy.deepcopy(found)):
        assert isinstance(other, Completion) and other == found
        assert other.to_dict() == found.to_dict() and other._repr_html_() == found._repr_html_()


def test_a_processor_sees_the_logits_before_a_grammar_and_cannot_break_it(tiny: Generator) -> None:
    def backwards(ids: list[int], logits: Any) -> None:
        assert np.isfinite(logits).all()
        logits *= -1

    answer = tiny.generate("Hello", regex="[0-9]{5}", logits_processor=backwards, seed=1)
    assert re.fullmatch("[0-9]{5}", answer.text)

    def nothing(ids: list[int], logits: Any) -> None:
        # Digits, byte tokens among them, are all that may come.
        logits[3:] = -np.inf

    with pytest.raises(InvalidRequestError, match="logits_processor forbids every token that may come next here"):
        tiny.generate("Hello", regex="[0-9]{5}", logits_processor=nothing)
    assert tiny.generate("Hello", max_tokens=2).text


def test_a_constrained_text_is_replayed(tiny: Generator) -> None:
    def weather(place: str, days: int = 1) -> str:
        """The weather."""
        return place

    for options in (
        {"regex": "(ab|cd){3,9}"},
        {"json_schema": {"type": "object", "properties": {"a": {"enum": [1, 22, 333]}}, "required": ["a"]}},
        {"grammar": 'start: "x"+ "y"'},
        {"tools": [weather], "tool_choice": "required"},
    ):
        answer = tiny.generate("Hello", seed=4, max_tokens=40, **options)
        record = json.loads(json.dumps(answer.trace()))
        assert trace.replay(record, tiny) is None
        record["ids"][0] += 1
        difference = trace.replay(record, tiny)
        assert difference is not None and difference.position == 0
