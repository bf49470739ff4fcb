"""A model in several files is one model; the parts are written by the gguf package."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from gguf import GGUFWriter
from machine import needs_candle
from make_gguf import tiny_model

from candlewick import Generator, ModelFormatError, ModelNotFoundError, UnsupportedModelError

IDS = [1, 5, 200, 280]

changes_the_parts = pytest.mark.thread_unsafe(reason="changes the files that the threads share")


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    """A model in three files."""
    first = tiny_model(tmp_path / "m.gguf", split_tensors=6)
    return sorted(first.parent.glob("m-*.gguf"))


def test_parts_are_one_model(tmp_path: Path, parts: list[Path]) -> None:
    assert len(parts) == 3
    (tmp_path / "whole").mkdir()
    whole = Generator(tiny_model(tmp_path / "whole" / "m.gguf"))
    expected = whole._native.logits(IDS, 8)
    for path in parts:
        for mmap in (True, False):
            gen = Generator(path, mmap=mmap)
            assert gen._native.logits(IDS, 8) == expected, "any part stands for all of them"
            assert gen.info["path"] == parts[0]
            assert gen.info["file_bytes"] == sum(p.stat().st_size for p in parts)
            assert gen.info["audit"] == whole.info["audit"]


@changes_the_parts
def test_a_folder_counts_the_parts_as_one(tmp_path: Path, parts: list[Path]) -> None:
    assert Generator(tmp_path).info["path"] == parts[0]
    shutil.copy(parts[0], tmp_path / "other.gguf")
    with pytest.raises(ModelNotFoundError) as caught:
        Generator(tmp_path)
    assert parts[0].name in str(caught.value)
    assert parts[1].name not in str(caught.value)


@changes_the_parts
@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_missing_part_is_named(parts: list[Path], missing: int) -> None:
    parts[missing].unlink()
    with pytest.raises(
        ModelNotFoundError, match=rf"{parts[missing].name}` is missing: the model is split into 3 files"
    ):
        Generator(parts[(missing + 1) % 3])


@changes_the_parts
def test_a_part_under_another_name(parts: list[Path]) -> None:
    renamed = parts[0].rename(parts[0].with_name("model.gguf"))
    with pytest.raises(ModelFormatError, match=r"part 1 of 3 .* name must end in `-00001-of-00003.gguf`"):
        Generator(renamed)


@changes_the_parts
def test_a_part_in_the_place_of_another(parts: list[Path]) -> None:
    shutil.copy(parts[1], parts[2])
    with pytest.raises(ModelFormatError, match=r"`split.no` is 1, expected 2: this part belongs to another model"):
        Generator(parts[0])


@changes_the_parts
def test_a_part_of_another_model(tmp_path: Path, parts: list[Path]) -> None:
    """The same tensors once more, and one with a key that the first part does not have."""
    other = tmp_path / "other"
    other.mkdir()
    tiny_model(other / "m.gguf", split_tensors=7)
    shutil.copy(other / parts[1].name, parts[1])
    with pytest.raises(ModelFormatError, match=r"is in an earlier part too|belongs to another model"):
        Generator(parts[0])
    writer = GGUFWriter(parts[1], "phi3")
    writer.add_uint16("split.no", 1)
    writer.add_uint16("split.count", 3)
    writer.add_uint32("phi3.attention.sliding_window", 8)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(ModelFormatError, match=r"`phi3.attention.sliding_window` differs from the first part"):
        Generator(parts[0])


@changes_the_parts
def test_a_part_with_too_few_tensors(parts: list[Path]) -> None:
    writer = GGUFWriter(parts[2], "phi3")
    writer.add_uint16("split.no", 2)
    writer.add_uint16("split.count", 3)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(ModelFormatError, match=r"the parts have 12 tensors together, and `split.tensors.count` is 1\d"):
        Generator(parts[0])


@changes_the_parts
def test_a_part_that_is_cut_short(parts: list[Path]) -> None:
    parts[1].write_bytes(parts[1].read_bytes()[:-100])
    with pytest.raises(ModelFormatError, match=rf"{parts[1].name}`: .*cut short"):
        Generator(parts[0])


@needs_candle
def test_the_original_engine_wants_one_file(parts: list[Path]) -> None:
    with pytest.raises(UnsupportedModelError, match="this model is split into several"):
        Generator(parts[0], engine="original")
