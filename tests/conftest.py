"""What the tests share: tiny models, made here, and the model inside the package."""

from __future__ import annotations

from pathlib import Path

import pytest
from candlewick import Generator
from make_gguf import tiny_model


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
