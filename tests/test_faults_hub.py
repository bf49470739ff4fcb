"""Hubs that drip, and hubs that lie about sizes; what else they do is in test_hub.py and test_hub_processes.py."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_hub import REPO, FakeHub, Fault, drip, environment, gguf, redirect

from candlewick import DownloadError, Generator, models

# More threads here would share one hub and its plans.
pytestmark = pytest.mark.thread_unsafe(reason="plans the faults of all threads")

DATA = gguf()
SHA = hashlib.sha256(DATA).hexdigest()
FILE = "model-q4.gguf"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with FakeHub() as hub:
        hub.add(REPO, {FILE: DATA})
        for name, value in environment(hub, tmp_path).items():
            if value is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, value)
        monkeypatch.setenv("CANDLEWICK_DOWNLOAD_RETRIES", "1")
        yield hub


def fetch(filename: str | None = FILE) -> Path:
    return models.Hub(progress=False).fetch(REPO, filename)[0]


@pytest.mark.parametrize("kind", ["data", "api"])
def test_a_hub_that_drips_is_given_up(hub: FakeHub, kind: str) -> None:
    """Ten bytes a second are never silence, and a file of 1 MB would take a day."""
    hub.plan(kind, always=drip(10))
    began = time.monotonic()
    with pytest.raises(DownloadError, match=r"1\d bytes in 1 s.*2 times in a row"):
        fetch(None)
    assert time.monotonic() - began < 20
    # What came is kept.
    hub.plan(kind)
    hub.requests.clear()
    assert fetch().read_bytes() == DATA
    assert (hub.sent("data") < len(DATA)) == (kind == "data")


def test_a_slow_line_is_not_given_up(hub: FakeHub) -> None:
    hub.plan("data", Fault(rate=300_000, chunk=3000))
    assert fetch().read_bytes() == DATA
    assert len(hub.of("data")) == 1


@pytest.mark.parametrize("size", [0, 1, len(DATA) - 32, len(DATA) + 32, 2 * len(DATA)])
def test_a_hub_that_lies_about_the_size(hub: FakeHub, tmp_path: Path, size: int) -> None:
    hub.plan("head", always=Fault(headers={"X-Linked-Size": str(size)}))
    with pytest.raises((DownloadError, OSError, ValueError)):
        fetch()
    assert not list((tmp_path / "hf" / "hub").glob("models--*/snapshots/*/*")), "nothing has a final name"
    hub.plan("head")
    assert fetch().read_bytes() == DATA


@pytest.mark.parametrize("look", [fetch, lambda: Generator.estimate(REPO)], ids=["fetch", "estimate"])
@pytest.mark.parametrize("kind", ["head", "resolve", "data", "api"])
def test_the_token_never_follows_a_redirect(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch, kind: str, look: object
) -> None:
    """Nor do circles through another host bring it back, nor to it."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.plan(kind, always=redirect(f"{hub.foreign}/a"))
    hub.plan("foreign", redirect(f"{hub.url}/b"), redirect(f"{hub.foreign}/c"), always=redirect(f"{hub.foreign}/a"))
    assert callable(look)
    with pytest.raises((DownloadError, OSError)):
        models.Hub(progress=False).fetch(REPO) if look is fetch else look()
    foreign = hub.of("foreign", "data")
    assert hub.of("foreign") and not any("authorization" in r.headers for r in foreign)
    assert len(hub.requests) < 50
