"""The examples of the documentation's pages, in order, in one interpreter each page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)

if not PAGES:
    pytest.skip("the pages are not in the sdist", allow_module_level=True)


def blocks(page: Path) -> list[tuple[int, str]]:
    text = page.read_text(encoding="utf-8")
    return [(text.count("\n", 0, found.start(1)), found[1]) for found in BLOCK.finditer(text)]


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p)], ids=lambda p: p.name)
def test_the_examples_run(page: Path) -> None:
    names: dict[str, object] = {"__name__": "__main__"}
    for line, source in blocks(page):
        # The line numbers of a failure are those of the page.
        exec(compile("\n" * line + source, str(page), "exec", dont_inherit=True), names)


def test_every_public_name_has_its_place() -> None:
    import candlewick

    pages = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    shown = set(re.findall(r"^::: candlewick\.(?:_native\.)?(\w+)$", pages, re.MULTILINE))
    assert shown == set(candlewick.__all__) - {"__version__"}


def test_the_readme_begins_with_an_example_that_runs() -> None:
    _, source = blocks(ROOT / "README.md")[0]
    exec(source, {})


def test_source_builds_for_gpus_name_the_features_that_they_need() -> None:
    builds = re.findall(r'build-args="--features ([\w,]+)"', (ROOT / "README.md").read_text(encoding="utf-8"))
    # maturin's --features replaces the list of pyproject.toml: without `python` the wheel would have no module.
    assert [build.split(",") for build in builds] == [["python", "cuda"], ["python", "metal"]]
