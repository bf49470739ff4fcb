"""Token ids are those of `tokenizers`, and of llama.cpp where that does what the model was published with."""

from __future__ import annotations

import json
import re
import unicodedata
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from make_gguf import Vocab, small_vocab, tiny_model
from tokenizer_corpus import ATOMS, CORPUS
from tokenizer_vocabularies import KINDS, byte_level, digest, sentencepiece_judge
from tokenizers import Tokenizer

from candlewick import Generator, ModelFormatError, UnsupportedModelError

LLAMA = Path(__file__).parent / "data" / "golden" / "llama_tokenizer.json"
BYTE_LEVEL = ["gpt-2", "dbrx", "gpt-4o"]


@dataclass
class Case:
    """A vocabulary of `KINDS`, its judge, and the package with a model that has it."""

    kind: str
    vocab: Vocab
    judge: Tokenizer
    gen: Generator

    def judgement(self, text: str) -> list[int]:
        return self.judge.encode(text, add_special_tokens=False).ids


@pytest.fixture(scope="module", params=KINDS)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    kind = KINDS[request.param]
    if kind.path is not None and not kind.path.exists():
        pytest.skip(f"{kind.path.name} is not beside the project: the vocabulary of Phi-3 itself is not tested")
    vocab = kind.vocab()
    path = tiny_model(tmp_path_factory.mktemp("tokenizer") / "m.gguf", vocab=vocab, layers=1)
    return Case(request.param, vocab, kind.judge(vocab), Generator(path))


def test_the_corpus_is_large_and_each_text_in_it_once() -> None:
    assert len(CORPUS) == len(set(CORPUS)) >= 2500


def test_ids_are_those_of_tokenizers(case: Case) -> None:
    wrong = [
        (text, expected, found)
        for text in CORPUS
        if (found := case.gen.tokenizer.encode(text)) != (expected := case.judgement(text))
    ]
    assert not wrong, f"{len(wrong)} of {len(CORPUS)}, first: {wrong[:3]}"


@settings(max_examples=300, deadline=None)
@given(text=st.one_of(st.text(), st.lists(st.sampled_from(ATOMS)).map("".join)))
def test_ids_of_any_text(case: Case, text: str) -> None:
    ids = case.judgement(text)
    assert case.gen.tokenizer.encode(text) == ids
    assert "".join(case.gen.tokenizer._deltas([], ids)) == case.gen.tokenizer.decode(ids)


def test_decoding_gives_the_text_back(case: Case) -> None:
    """Where no special token swallows white space, and the text has no `▁`, which stands for a space."""
    for text in CORPUS:
        if "<" not in text and "[PAD" not in text and ("▁" not in text or case.kind in BYTE_LEVEL):
            assert case.gen.tokenizer.decode(case.gen.tokenizer.encode(text)) == text


UNICODE_16 = (
    "\u1c89-\u1c8a\U00010d40-\U00010d8f\U00011bc0-\U00011bff\U00013460-\U000143ff\U00016d40-\U00016d7f"
    "\U0001e5d0-\U0001e5ff"
)
"""Letters and digits that Unicode 16 brought, and llama.cpp does not know."""


CASED_AND_MARKS = {"Lu", "Ll", "Lt", "Mn", "Mc", "Me", "Cn"}
"""Categories; the last is that of letters which an older Python does not know."""


def explained(case: Case, text: str) -> bool:
    """Whether llama.cpp is known to differ from the model's tokenizer.json on such a text, which is right then."""
    kinds = zip(case.vocab.tokens, case.vocab.types or [], strict=True)
    specials = "|".join(re.escape(token) for token, kind in kinds if kind in (3, 4))
    if case.kind not in BYTE_LEVEL:
        # `rstrip` swallows every Unicode white space in tokenizers, and what C's `isspace` knows in llama.cpp.
        spaces = re.search(rf"({specials})[ \t-\r]*[\x85\xa0\u2003\u3000]", text)
        # What the converter fills the embedding's rows with is in no tokenizer.json: nobody can write it.
        return bool(spaces) or "[PAD" in text
    if re.search(f"[{UNICODE_16}]", text):
        return True
    if case.kind == "dbrx":
        # All of Phi-4's special tokens have `lstrip` and `rstrip`, which are not in the file.
        return bool(re.search(rf"\s({specials})|({specials})\s", text))
    if case.kind == "gpt-4o":
        # The tokens that mark turns have `rstrip`. Its pattern takes only a to z and A to Z for lower and upper case,
        # and marks for no part of a word.
        turns = re.search(r"<\|(user|assistant|system|end)\|>\s", text)
        categories = {unicodedata.category(char) for char in text if not char.isascii()}
        return bool(turns) or not categories.isdisjoint(CASED_AND_MARKS)
    return False


def test_ids_are_those_of_llama(case: Case) -> None:
    """`data/make_llama_tokenizer_golden.py` says what is in the file."""
    golden = json.loads(LLAMA.read_text())[case.kind]
    ids = {text: case.gen.tokenizer.encode(text) for text in CORPUS}
    assert digest((ids | golden["differs"]).values()) == golden["sha256"], "llama.cpp differs on other texts"
    unexplained = [text for text in golden["differs"] if not explained(case, text)]
    assert not unexplained
    assert all(ids[text] != found for text, found in golden["differs"].items())


@pytest.mark.parametrize("other", BYTE_LEVEL)
@pytest.mark.parametrize("kind", BYTE_LEVEL)
def test_the_corpus_tells_the_splits_apart(tmp_path: Path, kind: str, other: str) -> None:
    """A split by another model's pattern shows in the ids: the tests above would fail."""
    vocab = KINDS[kind].vocab()
    judge = KINDS[kind].judge(vocab)
    gen = Generator(tiny_model(tmp_path / "m.gguf", vocab=replace(vocab, pre=other), layers=1))
    plain = [text for text in CORPUS if "<" not in text]
    wrong = sum(gen.tokenizer.encode(text) != judge.encode(text, add_special_tokens=False).ids for text in plain)
    assert wrong == 0 if other == kind else wrong > 50


SMALL = small_vocab(320)
REFERENCE = sentencepiece_judge(SMALL)
ALPHABET = "".join({c for piece in SMALL.tokens[259:] for c in piece if c != "▁"})


@given(text=st.text(alphabet=ALPHABET + "  \n", max_size=200))
@settings(max_examples=1000, deadline=None)
def test_ids_of_text_that_is_all_pieces(tiny: Generator, text: str) -> None:
    assert tiny.tokenizer.encode(text) == REFERENCE.encode(text, add_special_tokens=False).ids


def test_a_long_word_and_a_long_text_take_no_quadratic_time(tiny: Generator) -> None:
    """Half a million characters in one word: minutes if each merge looked at all of them."""
    word = (ALPHABET * 40_000)[:500_000]
    ids = tiny.tokenizer.encode(word)
    assert tiny.tokenizer.decode(ids) == word


def test_tokenizer_json_gives_the_same_ids_and_texts(tiny: Generator, tiny_path: Path, tmp_path: Path) -> None:
    REFERENCE.save(str(tmp_path / "tokenizer.json"))
    for given_as in (tmp_path / "tokenizer.json", tmp_path):
        other = Generator(tiny_path, tokenizer=given_as)
        assert other.tokenizer.vocab_size == 320
        assert other.tokenizer.eos_token_ids == tiny.tokenizer.eos_token_ids
        for text in ("Hello world", "<|user|>\nHi<|end|>\n<|assistant|>", "é🦫 \t\n", ""):
            ids = tiny.tokenizer.encode(text)
            assert other.tokenizer.encode(text) == ids
            assert other.tokenizer.decode(ids) == tiny.tokenizer.decode(ids)
        assert other.generate("Hello", seed=1, max_tokens=9).text == tiny.generate("Hello", seed=1, max_tokens=9).text


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("", ModelFormatError),
        ("{", ModelFormatError),
        ("[]", ModelFormatError),
        ('{"model": {"type": "BPE", "vocab": {}, "merges": []}}', (ModelFormatError, UnsupportedModelError)),
        ('{"model": 5}', ModelFormatError),
    ],
)
def test_broken_tokenizer_json(tiny_path: Path, tmp_path: Path, content: str, error: type) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(error, match=r"tokenizer\.json"):
        Generator(tiny_path, tokenizer=path)


def test_tokenizer_of_a_larger_model_is_refused(tiny_path: Path, tmp_path: Path) -> None:
    sentencepiece_judge(small_vocab(400)).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ModelFormatError, match=r"tokenizer\.json.*320 tokens: it belongs to another model"):
        Generator(tiny_path, tokenizer=tmp_path)


def test_an_unknown_split_pattern_is_named(tmp_path: Path) -> None:
    vocab = replace(byte_level("gpt-2", ["<|endoftext|>"]), pre="martian")
    path = tiny_model(tmp_path / "m.gguf", vocab=vocab, layers=1)
    with pytest.raises(UnsupportedModelError, match=r"`tokenizer\.ggml\.pre` is `martian`, expected one of"):
        Generator(path)
