"""`scripts/check_dist.py`: what stands between the built files and the index."""

from __future__ import annotations

import importlib.util
import io
import sys
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).parent.parent / "scripts"

if not SCRIPTS.is_dir():
    pytest.skip("the scripts are not in the sdist", allow_module_level=True)

# The release of one test is changed by all of its threads.
pytestmark = pytest.mark.thread_unsafe(reason="changes the files that the threads share")


@pytest.fixture(scope="module")
def check_dist() -> ModuleType:
    sys.path.insert(0, str(SCRIPTS))
    try:
        spec = importlib.util.spec_from_file_location("check_dist", SCRIPTS / "check_dist.py")
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(str(SCRIPTS))


def make_wheel(path: Path, *, without: str = "", extra: dict[str, bytes] | None = None) -> None:
    version = path.name.split("-")[1]
    info = f"candlewick-{version}.dist-info"
    files = dict.fromkeys(
        [
            "candlewick/__init__.py",
            "candlewick/_native.abi3.so",
            "candlewick/_native.pyi",
            "candlewick/demo.gguf",
            "candlewick/server/page/index.html",
            "candlewick/py.typed",
            f"{info}/METADATA",
            f"{info}/licenses/LICENSE-APACHE",
            f"{info}/licenses/LICENSE-MIT",
        ],
        b"",
    )
    files.pop(without, None)
    with zipfile.ZipFile(path, "w") as wheel:
        for name, data in {**files, **(extra or {})}.items():
            wheel.writestr(name, data)


def make_sdist(path: Path, check_dist: ModuleType, *extra: str) -> None:
    top = path.name.removesuffix(".tar.gz")
    with tarfile.open(path, "w:gz") as sdist:
        for name in sorted(check_dist.IN_SDIST) + list(extra):
            sdist.addfile(tarfile.TarInfo(f"{top}/{name}"), io.BytesIO())


@pytest.fixture
def release(tmp_path: Path, check_dist: ModuleType) -> Path:
    for name in check_dist.expected():
        if name.endswith(".whl"):
            make_wheel(tmp_path / name)
        else:
            make_sdist(tmp_path / name, check_dist)
    return tmp_path


def test_a_whole_release_is_accepted(release: Path, check_dist: ModuleType) -> None:
    assert len(check_dist.expected()) == 8 * 3 + 1
    assert check_dist.problems(release, partial=False) == []


def test_a_missing_file_is_named(release: Path, check_dist: ModuleType) -> None:
    name = check_dist.wheel_name("windows-arm64", "cp314t")
    (release / name).unlink()
    assert check_dist.problems(release, partial=False) == [f"{name}: missing"]
    assert check_dist.problems(release, partial=True) == []


@pytest.mark.parametrize(
    "name",
    [
        "candlewick-{}-cp310-abi3-linux_x86_64.whl",
        "candlewick-{}-cp312-abi3.abi3t-win_amd64.whl",
        "candlewick-{}-cp310-abi3-manylinux_2_36_x86_64.whl",
        "candlewick-9.9.9.tar.gz",
        "notes.txt",
    ],
)
@pytest.mark.parametrize("partial", [False, True])
def test_an_unexpected_file_is_named(release: Path, check_dist: ModuleType, name: str, partial: bool) -> None:
    name = name.format(check_dist.version())
    (release / name).touch()
    assert check_dist.problems(release, partial=partial) == [f"{name}: not expected"]


def test_nothing_at_all_is_not_a_part_of_a_release(tmp_path: Path, check_dist: ModuleType) -> None:
    assert check_dist.problems(tmp_path, partial=True) == [f"{tmp_path} is empty"]


@pytest.mark.parametrize("without", ["candlewick/demo.gguf", "candlewick/_native.abi3.so", "candlewick/py.typed"])
def test_a_wheel_that_lacks_something(release: Path, check_dist: ModuleType, without: str) -> None:
    name = check_dist.wheel_name("macos-arm64", "abi3")
    make_wheel(release / name, without=without)
    (problem,) = check_dist.problems(release, partial=False)
    assert problem.startswith(name)


@pytest.mark.parametrize("extra", ["tests/__init__.py", "candlewick/_native2.so", "candlewick.libs/libssl.so"])
def test_a_wheel_that_has_too_much(release: Path, check_dist: ModuleType, extra: str) -> None:
    name = check_dist.wheel_name("musllinux-x86_64", "abi3t")
    make_wheel(release / name, extra={extra: b""})
    assert check_dist.problems(release, partial=False)


def test_a_wheel_that_is_too_large(release: Path, check_dist: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_dist, "MAX_WHEEL_BYTES", 3000)
    name = check_dist.wheel_name("manylinux-aarch64", "abi3")
    make_wheel(release / name, extra={"candlewick/large.py": bytes(3000)})
    (problem,) = check_dist.problems(release, partial=False)
    assert problem.startswith(f"{name}: is 4") and "more than 3,000" in problem


@pytest.mark.parametrize("link", ["![A terminal](docs/terminal.svg)", "[a script](tests/data/make_golden.py)"])
def test_a_link_that_the_index_cannot_follow(release: Path, check_dist: ModuleType, link: str) -> None:
    name = check_dist.wheel_name("manylinux-x86_64", "abi3")
    metadata = f"candlewick-{check_dist.version()}.dist-info/METADATA"
    make_wheel(release / name, without=metadata, extra={metadata: f"Name: candlewick\n\nSee {link}.\n".encode()})
    assert check_dist.problems(release, partial=False) == [f"{name}: the index cannot show {link}"]
    # Built from a checkout, for one's own use.
    assert check_dist.problems(release, partial=True) == []


def test_the_readme_of_a_release_has_whole_addresses(release: Path, check_dist: ModuleType) -> None:
    text = (SCRIPTS.parent / "README.md").read_text(encoding="utf-8")
    assert check_dist.RELATIVE.search(text), "nothing here to prove it with"
    whole = sys.modules["absolute_links"].absolute(text, "https://host/owner/name", "v1")
    assert "](https://host/owner/name/raw/v1/docs/terminal.svg)" in whole
    assert "[a script](https://host/owner/name/blob/v1/tests/data/make_golden.py)" in whole
    name = check_dist.wheel_name("manylinux-x86_64", "abi3")
    metadata = f"candlewick-{check_dist.version()}.dist-info/METADATA"
    make_wheel(release / name, without=metadata, extra={metadata: whole.encode()})
    assert check_dist.problems(release, partial=False) == []


@pytest.mark.parametrize("local", [".cargo/config.toml", "python/.cache/crashes.json", "dist/notes.txt"])
def test_an_sdist_with_local_files(local: str, release: Path, check_dist: ModuleType) -> None:
    name = check_dist.sdist_name()
    make_sdist(release / name, check_dist, local)
    assert check_dist.problems(release, partial=False) == [f"{name}: has ['{local}']"]
