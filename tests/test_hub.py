"""Downloads from a hub that misbehaves: every answer it can give, and what is left on the disk afterwards."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import trustme
from fake_hub import (
    GATED,
    NO_REPO,
    REPO,
    FakeHub,
    Fault,
    cut,
    environment,
    gguf,
    redirect,
    stall,
    status,
)
from make_gguf import tiny_model

import candlewick
from candlewick import DownloadError, Generator, InvalidRequestError, ModelFormatError, ModelNotFoundError, models

DATA = gguf()
SHA = hashlib.sha256(DATA).hexdigest()
FILE = "model-q4.gguf"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with FakeHub() as hub:
        hub.add(REPO, {FILE: DATA, "README.md": b"# A model\n"})
        use(hub, tmp_path, monkeypatch)
        yield hub


def use(hub: FakeHub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment(hub, folder).items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "hf" / "hub"


def fetch(repo: str = REPO, filename: str | None = FILE, **options: Any) -> Path:
    options.setdefault("progress", False)
    return models.Hub(**options).fetch(repo, filename, revision=options.get("revision"))[0]


def part_of(cache: Path) -> bytes:
    """What there is of the file so far."""
    parts = list(cache.glob("models--*/blobs/*.incomplete"))
    assert len(parts) <= 1
    return parts[0].read_bytes() if parts else b""


def check_cache(cache: Path) -> None:
    """Nothing has a final name that is not whole and right."""
    for blob in cache.glob("models--*/blobs/*"):
        if blob.suffix != ".incomplete" and len(blob.name) == 64:
            assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name
    for link in cache.glob("models--*/snapshots/*/**/*"):
        assert link.exists(), f"{link} leads nowhere"


# What a fetch leaves, and what later ones ask


def test_first_fetch_and_later_ones(hub: FakeHub, cache: Path) -> None:
    path = fetch()
    commit = hub.repos[REPO].commit
    folder = cache / "models--owner--name"
    assert path == folder / "snapshots" / commit / FILE
    assert path.read_bytes() == DATA
    assert path.resolve() == folder / "blobs" / SHA
    assert not path.readlink().is_absolute()
    assert (folder / "refs" / "main").read_text() == commit
    assert hub.sent("data") == len(DATA)

    hub.requests.clear()
    assert fetch() == path
    assert [r.kind for r in hub.requests] == ["head"]

    # A commit never comes to mean something else: nobody is asked.
    hub.requests.clear()
    assert fetch(revision=commit) == path
    assert hub.requests == []


def test_only_what_changed_is_fetched(hub: FakeHub, cache: Path) -> None:
    old = fetch()
    other = gguf(200_000, seed=1)
    hub.add(REPO, {FILE: DATA, "other.gguf": other})
    hub.requests.clear()
    new = fetch()
    assert new != old and new.resolve() == old.resolve()
    assert hub.sent("data") == 0
    hub.add(REPO, {FILE: other})
    assert fetch().read_bytes() == other
    assert old.read_bytes() == DATA


def test_revisions(hub: FakeHub, cache: Path) -> None:
    hub.add("owner/tags", {FILE: DATA}, revisions=("main", "v1.0", "refs/pr/2"))
    commit = hub.repos["owner/tags"].commit
    for revision in ("v1.0", "refs/pr/2", commit):
        assert fetch("owner/tags", revision=revision).parent.name == commit
    assert (cache / "models--owner--tags" / "refs" / "refs" / "pr" / "2").read_text() == commit
    assert hub.sent("data") == len(DATA)
    for revision in ("v1.0", "refs/pr/2", commit):
        assert fetch("owner/tags", revision=revision, local_files_only=True).read_bytes() == DATA
    with pytest.raises(ModelNotFoundError, match=r'no revision "v9".*branches'):
        fetch("owner/tags", revision="v9")
    for bad in ("../main", "", "a b"):
        with pytest.raises(InvalidRequestError, match="revision"):
            fetch("owner/tags", revision=bad)


def test_generator_end_to_end(hub: FakeHub, tmp_path: Path) -> None:
    data = tiny_model(tmp_path / "tiny.gguf").read_bytes()
    hub.add("owner/tiny", {"tiny-q4.gguf": data, "tiny-f16.gguf": DATA})
    with Generator("owner/tiny", progress=False) as generator:
        assert generator.info["path"].name == "tiny-q4.gguf"
        assert generator.generate("hi", max_tokens=2, ignore_eos=True).usage.completion_tokens == 2


def test_no_model_is_the_original_one(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """The repositories and files that the program candlewick grew from has in its source."""
    hub.add("microsoft/Phi-3-mini-4k-instruct-gguf", {"Phi-3-mini-4k-instruct-q4.gguf": DATA, "f16.gguf": gguf(9000)})
    hub.add("microsoft/Phi-3-mini-4k-instruct", {"tokenizer.json": b"{}"})
    opened: dict[str, Any] = {}
    monkeypatch.setattr(candlewick._native, "Generator", lambda path, **options: opened.update(options, path=path))
    Generator(progress=False)
    assert opened["path"].name == "Phi-3-mini-4k-instruct-q4.gguf"
    assert opened["tokenizer"].read_bytes() == b"{}"
    # The small file first, and both from the cache the next time.
    assert [r.kind for r in hub.of("resolve", "data")] == ["resolve", "resolve", "data"]
    hub.requests.clear()
    Generator(local_files_only=True)
    assert hub.requests == []


# Which file


NAMES = ("m-Q8_0.gguf", "m-Q4_K_M.gguf", "m-Q5_K_M.gguf", "m-IQ4_XS.gguf")


@pytest.mark.parametrize(
    ("names", "repo", "expected"),
    [
        (("one.gguf",), REPO, "one.gguf"),
        (NAMES, REPO, "m-Q4_K_M.gguf"),
        (NAMES, f"{REPO}:Q5_K_M", "m-Q5_K_M.gguf"),
        (NAMES, f"{REPO}:q8_0", "m-Q8_0.gguf"),
        (("m-fp16.gguf", "m-q4.gguf"), REPO, "m-q4.gguf"),
        (("Q6_K/m.gguf", "Q4_0/m.gguf"), f"{REPO}:Q6_K", "Q6_K/m.gguf"),
    ],
)
def test_choice_online_and_offline(hub: FakeHub, cache: Path, names: tuple[str, ...], repo: str, expected: str) -> None:
    hub.add(REPO, {name: gguf(20_000, seed=i) for i, name in enumerate(names)})
    path = fetch(repo, None)
    assert path.as_posix().endswith("/" + expected)
    assert len(hub.of("data")) == 1
    assert fetch(repo, None, local_files_only=True) == path
    # With all files in the cache the same one is chosen.
    for name in names:
        fetch(REPO, name)
    assert fetch(repo, None, local_files_only=True) == path


@pytest.mark.parametrize(
    ("names", "repo", "words"),
    [
        (("m-Q4_0.gguf", "m-Q4_1.gguf"), REPO, ("several models", "filename=", "m-Q4_0.gguf  (20.0 kB)")),
        (NAMES, f"{REPO}:Q2_K", ('no file of quantization "Q2_K"', "m-Q8_0.gguf")),
        (NAMES, f"{REPO}:Q4_K", ('no file of quantization "Q4_K"',)),
        (("config.json",), REPO, ("no .gguf file", "config.json", "-gguf")),
    ],
)
def test_no_choice_lists_what_there_is(hub: FakeHub, names: tuple[str, ...], repo: str, words: tuple[str, ...]) -> None:
    hub.add(REPO, dict.fromkeys(names, gguf(20_000)))
    with pytest.raises(ModelNotFoundError) as caught:
        fetch(repo, None)
    assert all(word in str(caught.value) for word in words), caught.value
    assert hub.of("data") == []


def test_split_model(hub: FakeHub, cache: Path) -> None:
    files = {f"big/m-Q4_K_M-{i:05}-of-00003.gguf": gguf(50_000, seed=i) for i in (1, 2, 3)}
    hub.add(REPO, files | {"small-Q8_0.gguf": DATA})
    for options in ({}, {"local_files_only": True}):
        paths = models.Hub(progress=False, **options).fetch(REPO)
        assert [p.read_bytes() for p in paths] == list(files.values())
    # Any part stands for all of them; one that is missing means that the model is not there.
    assert models.Hub(local_files_only=True).fetch(REPO, list(files)[1]) == paths
    paths[2].unlink()
    with pytest.raises(ModelNotFoundError, match="not in the cache"):
        models.Hub(local_files_only=True).fetch(REPO)


@pytest.mark.parametrize("name", ["../../x.gguf", "/etc/passwd", "a\\b.gguf", "", "a//b"])
def test_filenames_stay_inside(hub: FakeHub, name: str) -> None:
    with pytest.raises(InvalidRequestError, match="filename"):
        fetch(filename=name)
    # Nor can a hub make us write elsewhere.
    hub.add(REPO, {f"../../{FILE}": DATA})
    with pytest.raises(InvalidRequestError, match="filename"):
        fetch(filename=None)


# Faults that a fetch gets over


@pytest.mark.parametrize(
    ("kind", "faults"),
    [
        ("data", [cut(300_000)]),
        ("data", [cut(0), cut(1), cut(100_000), cut(100_000)]),
        ("data", [stall(200_000)]),
        ("data", [status(500), status(503)]),
        ("data", [status(429, Retry_After="0")]),
        ("data", [status(403)]),  # an address of the storage that has expired
        ("data", [cut(300_000), Fault(no_range=True)]),
        ("data", [Fault(no_range=True, cut=600_000), Fault(no_range=True)]),
        ("data", [Fault(wrong=True)]),
        ("data", [Fault(longer=10)]),
        ("resolve", [status(502)]),
        ("head", [status(500), status(504)]),
        ("head", [Fault(stall=-1)]),
        ("api", [status(500)]),
        ("api", [cut(5)]),
    ],
    ids=str,
)
def test_success_after_faults(hub: FakeHub, cache: Path, monkeypatch: Any, kind: str, faults: list[Fault]) -> None:
    monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", "1")
    hub.plan(kind, *faults)
    assert fetch(filename=None).read_bytes() == DATA
    check_cache(cache)
    assert part_of(cache) == b""
    assert len(hub.of(kind)) >= len(faults)


def test_bytes_cross_the_wire_once(hub: FakeHub) -> None:
    hub.plan("data", *[cut(200_000)] * 4)
    assert fetch().read_bytes() == DATA
    assert hub.sent("data") == len(DATA)
    ranges = [r.headers.get("range") for r in hub.of("data")]
    assert ranges == [None, *(f"bytes={n}-" for n in (200_000, 400_000, 600_000, 800_000))]


def test_a_server_that_ignores_range(hub: FakeHub, caplog: pytest.LogCaptureFixture) -> None:
    """What is here is read past, and neither lost nor written twice."""
    hub.plan("data", cut(300_000), always=Fault(no_range=True))
    assert fetch().read_bytes() == DATA
    assert [r.status for r in hub.of("data")] == [200, 200]
    assert "again from the beginning" not in caplog.text


def test_many_small_pieces_are_progress(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that breaks again and again, each time after some bytes, is not given up."""
    monkeypatch.setenv("CANDLEWICK_DOWNLOAD_RETRIES", "1")
    hub.plan("data", always=cut(100_000))
    assert fetch().read_bytes() == DATA
    assert hub.sent("data") == len(DATA)


def test_retry_after_is_honoured(hub: FakeHub) -> None:
    hub.plan("data", status(429, Retry_After="2"))
    began = time.monotonic()
    fetch()
    assert 2 <= time.monotonic() - began < 6


# Faults that it does not get over


@pytest.mark.parametrize(
    ("kind", "fault", "error", "words"),
    [
        ("head", status(401), DownloadError, ["HTTP status 401", "HF_TOKEN", "127.0.0.1"]),
        ("head", GATED, DownloadError, ["gated", "licence", f"/{REPO}", "HF_TOKEN", "HTTP status 403"]),
        ("head", status(403), DownloadError, ["access denied", "HTTP status 403"]),
        ("head", NO_REPO, ModelNotFoundError, [f"no repository `{REPO}`", "private", "HF_TOKEN"]),
        ("head", status(404), ModelNotFoundError, [FILE, REPO]),
        ("head", status(500), DownloadError, ["in trouble", "4 times", "HTTP status 500"]),
        ("head", status(429, Retry_After="3600"), DownloadError, ["too many requests", "3600 s"]),
        ("head", Fault(status=200, body=b"<html>log in"), DownloadError, ["not a hub's", "HF_ENDPOINT"]),
        ("head", redirect("/owner/name/resolve/main/" + FILE), DownloadError, ["redirect loop"]),
        ("head", redirect("ftp://127.0.0.1/x"), DownloadError, ["no http or https URL"]),
        ("head", status(302), DownloadError, ["redirect to nowhere"]),
        ("resolve", status(401), DownloadError, ["HTTP status 401"]),
        ("data", redirect("/blob"), DownloadError, ["redirect loop"]),
        ("data", status(500), DownloadError, ["in trouble", "4 times"]),
        ("data", status(404), DownloadError, ["the storage refused"]),
        ("data", Fault(wrong=True), DownloadError, ["SHA-256", SHA, "wrong bytes"]),
        ("data", Fault(longer=10), DownloadError, ["1000010 bytes", "another length"]),
        ("data", cut(10), DownloadError, ["broke off", "the 40 bytes that were fetched are kept", "times in a row"]),
        ("data", stall(100), DownloadError, ["no bytes for 1 s", "the 400 bytes"]),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_failures_say_what_to_do(
    hub: FakeHub, cache: Path, kind: str, fault: Fault, error: type[Exception], words: list[str]
) -> None:
    hub.plan(kind, always=fault)
    with pytest.raises(error) as caught:
        fetch()
    text = str(caught.value)
    assert all(word.replace("1000010", str(len(DATA) + 10)) in text for word in words), text
    assert FILE in text or REPO in text
    check_cache(cache)
    assert not list(cache.glob("models--*/snapshots/*/*"))
    assert DATA.startswith(part_of(cache))
    assert isinstance(caught.value, OSError)
    # Once the hub is well again, so is the fetch, with what there was.
    kept = len(part_of(cache))
    hub.plan(kind)
    hub.requests.clear()
    assert fetch().read_bytes() == DATA
    assert hub.sent("data") == len(DATA) - kept


def test_missing_file_lists_the_others(hub: FakeHub) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        fetch(filename="model-q5.gguf")
    assert f"\n  {FILE}  (1.00 MB)" in str(caught.value)


def test_what_is_neither_here_nor_there(hub: FakeHub) -> None:
    with pytest.raises(ModelNotFoundError, match=r"no repository `models/phi3`.*nor is there a file or folder"):
        Generator("models/phi3")
    hub.requests.clear()
    for name in ("models/phi 3", "a/b/c", "models/phi3.gguf", "~/phi3", "../phi3"):
        with pytest.raises(ModelNotFoundError, match=r"no such file or folder.*hub id"):
            Generator(name)
    assert hub.requests == []


def test_a_local_model_has_no_revision(tmp_path: Path) -> None:
    for name in ("demo", str(tmp_path)):
        with pytest.raises(InvalidRequestError, match="no repository of the hub"):
            Generator(name, revision="main")


def test_redirect_chain_is_bounded(hub: FakeHub) -> None:
    hub.plan("data", *[redirect(f"/hop{i}") for i in range(20)])
    with pytest.raises(DownloadError, match="more than 10 redirects"):
        fetch()
    assert len(hub.requests) < 16


def test_disk_full_has_both_numbers(hub: FakeHub, cache: Path) -> None:
    huge = str(10**18)
    hub.plan("head", always=Fault(headers={"X-Linked-Size": huge}))
    with pytest.raises(DownloadError, match=r"1000 PB more are needed and .* are free .*cache_dir"):
        fetch()
    assert hub.of("data") == []


def test_hub_that_cannot_be_reached(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DownloadError, match=r"127\.0\.0\.1:9: .*refused.*network connection"):
        fetch()
    monkeypatch.setenv("HF_ENDPOINT", "http://no-such-host.invalid")
    with pytest.raises(DownloadError, match=r"no-such-host\.invalid"):
        fetch()
    monkeypatch.setenv("HF_ENDPOINT", "huggingface.co")
    with pytest.raises(InvalidRequestError, match="HF_ENDPOINT"):
        fetch()


# What is in the part file


def test_a_damaged_part_file_is_found_out(hub: FakeHub, cache: Path) -> None:
    hub.plan("data", always=cut(100_000))
    hub.plan("data", cut(300_000), always=status(500))
    with pytest.raises(DownloadError, match="300 kB that were fetched are kept"):
        fetch()
    (part,) = cache.glob("models--*/blobs/*.incomplete")
    part.write_bytes(bytes(300_000))
    hub.plan("data")
    assert fetch().read_bytes() == DATA
    check_cache(cache)


@pytest.mark.parametrize("length", [0, len(DATA), len(DATA) + 5])
def test_part_files_of_odd_lengths(hub: FakeHub, cache: Path, length: int) -> None:
    part = cache / "models--owner--name" / "blobs" / f"{SHA}.incomplete"
    part.parent.mkdir(parents=True)
    part.write_bytes((DATA + bytes(5))[:length])
    assert fetch().read_bytes() == DATA
    # A whole file that only lacked its name is not fetched again.
    assert hub.sent("data") == (0 if length == len(DATA) else len(DATA))


def test_header_is_checked(hub: FakeHub, cache: Path) -> None:
    # The hub's own file is bad: it is what was asked for, and asking again would not help.
    bad = b"PK\x03\x04" + bytes(50_000)
    hub.add("owner/bad", {"bad.gguf": bad})
    with pytest.raises(ModelFormatError, match=r"bad\.gguf.*arrived as the hub has it"):
        fetch("owner/bad", "bad.gguf")
    # A small file has no SHA-256 to go by: its header tells that the transfer was bad.
    small = gguf(5_000)
    hub.add("owner/small", {"small.gguf": small})
    hub.plan("resolve", Fault(wrong=True))
    assert fetch("owner/small", "small.gguf").read_bytes() == small
    hub.add("owner/small2", {"small.gguf": gguf(6_000)})
    hub.plan("resolve", always=Fault(wrong=True))
    with pytest.raises(DownloadError, match="not a GGUF file"):
        fetch("owner/small2", "small.gguf")
    assert not list((cache / "models--owner--small2").glob("snapshots/*/*"))


def test_cached_file_of_the_wrong_size_is_fetched_again(hub: FakeHub) -> None:
    path = fetch()
    path.resolve().write_bytes(b"half")
    assert fetch().read_bytes() == DATA


# Tokens


def authorised(hub: FakeHub) -> set[str]:
    return {r.kind for r in hub.requests if "authorization" in r.headers}


def test_a_token_goes_to_the_hub_alone(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.plan("data", redirect(f"{hub.foreign}/blob?sha={SHA}"))
    fetch(filename=None)
    assert [r.kind for r in hub.of("data", "foreign")] == ["data", "foreign"]
    assert authorised(hub) == {"api", "head", "resolve"}
    assert {r.headers["authorization"] for r in hub.of("head")} == {"Bearer hf_secret"}


def test_a_token_does_not_come_back_to_the_hub(hub: FakeHub) -> None:
    """A foreign host must not choose what is asked in the user's name."""
    hub.plan("resolve", redirect(f"{hub.foreign}/x"))
    hub.plan("foreign", redirect(f"{hub.url}/{REPO}/resolve/main/{FILE}"))
    fetch(token="hf_secret")
    first, second = hub.of("resolve")
    assert "authorization" in first.headers and "authorization" not in second.headers


def test_redirects_within_the_hub_keep_the_token(hub: FakeHub) -> None:
    """A repository that was renamed."""
    hub.add("owner/new", {FILE: DATA})
    for kind in ("head", "resolve"):
        hub.plan(kind, status(307, Location=f"/owner/new/resolve/main/{FILE}"))
    fetch("owner/old", token="hf_secret")
    assert authorised(hub) == {"head", "resolve"}
    assert len(hub.of("head")) == 2


def test_where_the_token_comes_from(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def sent(**options: Any) -> str | None:
        hub.requests.clear()
        fetch(**options)
        return hub.requests[0].headers.get("authorization")

    assert sent() is None
    (tmp_path / "hf" / "token").write_text("hf_file\n")
    assert sent() == "Bearer hf_file"
    monkeypatch.setenv("HF_TOKEN", "hf_env")
    assert sent() == "Bearer hf_env"
    assert sent(token="hf_arg") == "Bearer hf_arg"
    assert sent(token=True) == "Bearer hf_env"
    assert sent(token=False) is None
    with pytest.raises(InvalidRequestError, match="token") as caught:
        fetch(token="hf_\u00e9")
    assert "hf_\u00e9" not in str(caught.value)
    with pytest.raises(TypeError, match="token"):
        fetch(token=5)


# Without a network


def test_offline(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.plan("head", Fault())
    with pytest.raises(ModelNotFoundError, match=r"not in the cache .*HF_HUB_OFFLINE"):
        fetch(local_files_only=True)
    path = fetch()
    hub.requests.clear()
    assert fetch(local_files_only=True) == path
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert fetch() == path
    with pytest.raises(ModelNotFoundError, match=rf"of this repository it has\n  {FILE}"):
        fetch(filename="other.gguf")
    assert hub.requests == []


@pytest.mark.parametrize("fault", [status(500), status(401), status(429), stall(-1), GATED, NO_REPO], ids=str)
def test_cached_files_are_used_when_the_hub_is_away(
    hub: FakeHub, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", "1")
    path = fetch()
    hub.plan("head", always=fault)
    hub.plan("api", always=fault)
    hub.requests.clear()
    for filename in (FILE, None):
        with caplog.at_level(logging.WARNING, "candlewick"):
            caplog.clear()
            assert fetch(filename=filename) == path
        assert "using the cached files" in caplog.text
    # Once each: who has the file does not wait for retries.
    assert len(hub.requests) == 2


def test_a_moved_branch_is_known_only_once_it_is_here(hub: FakeHub) -> None:
    path = fetch()
    hub.add(REPO, {FILE: gguf(seed=1)})
    hub.plan("data", always=status(500))
    with pytest.raises(DownloadError):
        fetch()
    assert fetch(local_files_only=True) == path


# The cache that Python's huggingface_hub has


def test_huggingface_hub_reads_our_cache(hub: FakeHub, cache: Path) -> None:
    ours = fetch()
    small = fetch(filename="README.md")
    for name, path in ((FILE, ours), ("README.md", small)):
        theirs = huggingface_hub.hf_hub_download(REPO, name, cache_dir=cache, local_files_only=True)
        assert Path(theirs) == path
    info = huggingface_hub.scan_cache_dir(cache)
    assert not info.warnings
    (repo,) = info.repos
    assert repo.repo_id == REPO and repo.refs.keys() == {"main"}
    # Online it finds nothing to do, either.
    hub.requests.clear()
    theirs = huggingface_hub.hf_hub_download(REPO, FILE, cache_dir=cache, endpoint=hub.url)
    assert Path(theirs) == ours
    assert hub.sent("data", "resolve") == 0


def test_we_read_the_cache_of_huggingface_hub(hub: FakeHub, cache: Path) -> None:
    theirs = Path(huggingface_hub.hf_hub_download(REPO, FILE, cache_dir=cache, endpoint=hub.url))
    readme = Path(huggingface_hub.hf_hub_download(REPO, "README.md", cache_dir=cache, endpoint=hub.url))
    hub.requests.clear()
    assert fetch(local_files_only=True) == theirs
    assert fetch(filename=None, local_files_only=True) == theirs
    assert hub.requests == []
    assert fetch() == theirs
    assert fetch(filename="README.md") == readme
    assert hub.sent("data", "resolve") == 0


def test_without_symlinks(hub: FakeHub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_DISABLE_SYMLINKS", "1")
    path = fetch()
    assert path.read_bytes() == DATA and not path.is_symlink()
    assert Path(huggingface_hub.hf_hub_download(REPO, FILE, cache_dir=cache, local_files_only=True)) == path
    assert fetch(local_files_only=True) == path
    # No second copy.
    (blob,) = cache.glob("models--*/blobs/*")
    assert blob.stat().st_ino == path.stat().st_ino


# Proxies and certificates


class Proxy(ThreadingHTTPServer):
    """Counts CONNECTs, and refuses or passes them on."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, code: int = 200) -> None:
        self.code = code
        self.seen: list[tuple[str, str | None]] = []
        super().__init__(("127.0.0.1", 0), _Connect)

    def __enter__(self) -> Proxy:
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


class _Connect(BaseHTTPRequestHandler):
    server: Proxy

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_CONNECT(self) -> None:
        self.server.seen.append((self.path, self.headers.get("Proxy-Authorization")))
        if self.server.code != 200:
            self.send_error(self.server.code)
            return
        host, _, port = self.path.rpartition(":")
        with socket.create_connection((host, int(port))) as far:
            self.send_response_only(200)
            self.end_headers()

            def back() -> None:
                with contextlib.suppress(OSError):
                    while chunk := far.recv(65536):
                        self.connection.sendall(chunk)

            thread = threading.Thread(target=back, daemon=True)
            thread.start()
            while chunk := self.connection.recv(65536):
                far.sendall(chunk)
            far.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_proxies(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    with Proxy() as proxy:
        port = proxy.server_address[1]
        monkeypatch.setenv("HTTP_PROXY", f"http://ann:s3cret@127.0.0.1:{port}")
        assert fetch().read_bytes() == DATA
        hosts = {host for host, _ in proxy.seen}
        assert hosts == {url.removeprefix("http://") for url in (hub.url, hub.storage)}
        assert all(auth and auth.startswith("Basic ") for _, auth in proxy.seen)
        proxy.seen.clear()
        monkeypatch.setenv("NO_PROXY", "localhost,127.0.0.1")
        fetch()
        assert proxy.seen == []
        monkeypatch.delenv("NO_PROXY")
        proxy.code = 407
        with pytest.raises(DownloadError, match=r"proxy http://127.*HTTP_PROXY.*407.*user and password") as caught:
            fetch(filename="README.md")
        assert "s3cret" not in str(caught.value)
        proxy.code = 503
        with pytest.raises(DownloadError, match="503"):
            fetch(filename="README.md")
    monkeypatch.setenv("HTTP_PROXY", "http://ann:s3cret@127.0.0.1:9")
    with pytest.raises(DownloadError, match=r"through the proxy .*HTTP_PROXY.*NO_PROXY") as caught:
        fetch(filename="README.md")
    assert "s3cret" not in str(caught.value)


def test_certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(server)
    known = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(known))
    with FakeHub(server) as hub, FakeHub() as plain:
        hub.add(REPO, {FILE: DATA})
        use(hub, tmp_path, monkeypatch)
        monkeypatch.delenv("SSL_CERT_DIR", raising=False)
        with pytest.raises(DownloadError, match=r"secure connection failed.*SSL_CERT_FILE"):
            fetch()
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
        with pytest.raises(DownloadError, match="name no certificate"):
            fetch()
        monkeypatch.setenv("SSL_CERT_FILE", str(known))
        # From here on nobody else may read along.
        hub.plan("data", redirect(f"{plain.storage}/blob?sha={SHA}"))
        with pytest.raises(DownloadError, match="from https to http"):
            fetch()
        assert plain.requests == []
        assert fetch().read_bytes() == DATA


# Progress


def test_progress_callable(hub: FakeHub) -> None:
    hub.plan("data", Fault(rate=1e6), cut(300_000))
    calls: list[tuple[int, int, str]] = []
    began = time.monotonic()
    fetch(progress=lambda *call: calls.append(call))
    taken = time.monotonic() - began
    assert calls[-1] == (len(DATA), len(DATA), FILE)
    assert [done for done, _, _ in calls] == sorted(done for done, _, _ in calls)
    assert all(call[1:] == (len(DATA), FILE) for call in calls)
    assert 3 <= len(calls) <= 10 * taken + 2
    # Nothing to fetch, nothing to tell.
    calls.clear()
    fetch(progress=lambda *call: calls.append(call))
    assert calls == []


class Enough(BaseException):
    """Not even an Exception."""


def test_an_exception_of_the_callable_ends_the_download(hub: FakeHub, cache: Path) -> None:
    def stop(done: int, total: int, file: str) -> None:
        if done > 100_000:
            raise Enough(file)

    hub.plan("data", Fault(rate=1e6))
    with pytest.raises(Enough, match=FILE):
        fetch(progress=stop)
    kept = part_of(cache)
    assert 100_000 < len(kept) < len(DATA) and DATA.startswith(kept)
    hub.requests.clear()
    fetch()
    assert hub.sent("data") == len(DATA) - len(kept)


def test_progress_must_be_a_bool_or_callable(hub: FakeHub) -> None:
    with pytest.raises(TypeError, match="progress"):
        fetch(progress="yes")
