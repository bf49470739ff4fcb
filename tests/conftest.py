"""What the tests share: tiny models, made here, and the model inside the package."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

# The models here are so small that handing work to a second thread costs more than the work.
os.environ.setdefault("CANDLE_NUM_THREADS", "1")

# The history of chats on a terminal is that of the one who runs the tests.
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="candlewick-tests-")

# Started in the background, a process has Ctrl-C switched off and its children too: the tests that press it need it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest
from machine import CANDLE_RUNS, REFUSAL
from make_gguf import tiny_model
from phi3_gguf import CHAT_TEMPLATE

from candlewick import Generator, UnsupportedModelError


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Iterator[None]:
    """Skips what needs an engine that this CPU cannot run."""
    try:
        return (yield)
    except UnsupportedModelError as error:
        if CANDLE_RUNS or REFUSAL not in str(error):
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two layers with random weights, context 512."""
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny.gguf", seed=1)


@pytest.fixture(scope="session")
def tiny(tiny_path: Path) -> Generator:
    return Generator(tiny_path)


@pytest.fixture(scope="session")
def demo() -> Generator:
    return Generator("demo")


@pytest.fixture(scope="module")
def bpe(tmp_path_factory: pytest.TempPathFactory) -> Generator:
    """Random weights and a GPT-2 vocabulary: other bytes in a token, and no space that goes at the start."""
    # Only those who ask for it need what judges vocabularies.
    from tokenizer_vocabularies import KINDS

    vocab = KINDS["gpt-2"].vocab()
    vocab.chat_template = CHAT_TEMPLATE
    return Generator(tiny_model(tmp_path_factory.mktemp("m") / "bpe.gguf", vocab=vocab, seed=3))


@pytest.fixture(scope="module", params=["demo", "tiny", "bpe"])
def model(request: pytest.FixtureRequest) -> Generator:
    """Each kind of vocabulary."""
    return request.getfixturevalue(request.param)
