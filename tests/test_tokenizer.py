"""Token ids are those of llama.cpp and of `tokenizers` (tests/data/make_tokenizer_golden.py)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from make_gguf import tiny_model
from phi3_gguf import Vocab, small_vocab
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

from candlewick import Generator, ModelFormatError, UnsupportedModelError

GOLDEN = Path(__file__).parent / "data" / "golden"
PHI3 = Path(__file__).resolve().parents[2] / "shared" / "data" / "ggml-vocab-phi-3.gguf"


@pytest.fixture(scope="module", params=["small", "demo", "phi3"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Generator, list[dict]]:
    name = request.param
    if name == "demo":
        gen = Generator("demo")
    else:
        if name == "phi3" and not PHI3.exists():
            pytest.skip("Phi-3's vocabulary is not beside the project; the demo's and a small one are tested")
        vocab = small_vocab(320) if name == "small" else Vocab.from_gguf(PHI3)
        gen = Generator(tiny_model(tmp_path_factory.mktemp(name) / "m.gguf", vocab=vocab, layers=1))
    return gen, json.loads((GOLDEN / f"tokenizer_{name}.json").read_text(encoding="utf-8"))


def test_golden_ids(case: tuple[Generator, list[dict]]) -> None:
    gen, entries = case
    wrong = [
        (entry["text"], entry["ids"], found)
        for entry in entries
        if (found := gen.tokenizer.encode(entry["text"])) != entry["ids"]
    ]
    assert not wrong, f"{len(wrong)} of {len(entries)}, first: {wrong[:3]}"


def test_decoding_gives_the_text_back(case: tuple[Generator, list[dict]]) -> None:
    """Where no special token swallows white space, and the text has no `▁`, which stands for a space."""
    gen, entries = case
    for entry in entries:
        text = entry["text"]
        if "<" not in text and "[PAD" not in text and "▁" not in text:
            assert gen.tokenizer.decode(entry["ids"]) == text


def bpe(vocab: Vocab) -> Tokenizer:
    """`tokenizers`' BPE with the merges that the scores imply, as transformers writes tokenizer.json for Llama."""
    ids = {piece: i for i, piece in enumerate(vocab.tokens)}
    merges = []
    for piece, i in ids.items():
        if vocab.types[i] == 1:
            cuts = ((piece[:k], piece[k:]) for k in range(1, len(piece)))
            merges += [(vocab.scores[i], pair) for pair in cuts if pair[0] in ids and pair[1] in ids]
    merges.sort(key=lambda m: -m[0])
    tokenizer = Tokenizer(
        models.BPE(ids, [pair for _, pair in merges], unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    keep = {"<unk>", "<s>", "<|endoftext|>"}
    specials = [piece for piece, kind in zip(vocab.tokens, vocab.types, strict=True) if kind in (2, 3)]
    tokenizer.add_special_tokens([AddedToken(s, rstrip=s not in keep, normalized=False) for s in specials])
    user_defined = [piece for piece, kind in zip(vocab.tokens, vocab.types, strict=True) if kind == 4]
    tokenizer.add_tokens([AddedToken(s, rstrip=True, normalized=False) for s in user_defined])
    return tokenizer


SMALL = small_vocab(320)
REFERENCE = bpe(SMALL)
ALPHABET = "".join({c for piece in SMALL.tokens[259:] for c in piece if c != "▁"})


@given(text=st.one_of(st.text(), st.text(alphabet=ALPHABET + "  \n", max_size=200)))
@settings(max_examples=1000, deadline=None)
def test_ids_of_any_text(tiny: Generator, text: str) -> None:
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
    bpe(small_vocab(400)).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ModelFormatError, match=r"tokenizer\.json.*320 tokens: it belongs to another model"):
        Generator(tiny_path, tokenizer=tmp_path)


def gpt2_vocab() -> tuple[Vocab, Tokenizer]:
    """A byte-level BPE of a few merges, and the same in `tokenizers`."""
    from tokenizers.pre_tokenizers import ByteLevel

    alphabet = sorted(ByteLevel.alphabet())
    merges = [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("Ġ", "w"), ("Ġw", "o"), ("r", "l"), ("rl", "d")]
    tokens = alphabet + ["".join(pair) for pair in merges] + ["<|endoftext|>", "<|im_end|>"]
    reference = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, merges))
    reference.pre_tokenizer = ByteLevel(add_prefix_space=False)
    reference.decoder = tokenizers.decoders.ByteLevel()
    reference.add_special_tokens(["<|endoftext|>", "<|im_end|>"])
    end = len(tokens) - 2
    vocab = Vocab(
        tokens=tokens,
        scores=[0.0] * len(tokens),
        types=[1] * end + [3, 3],
        bos_id=end,
        eos_id=end,
        unk_id=None,
        pad_id=None,
        add_bos=False,
        model="gpt2",
        pre="gpt-2",
        merges=[" ".join(pair) for pair in merges],
    )
    return vocab, reference


GPT2, GPT2_REFERENCE = gpt2_vocab()


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Generator:
    return Generator(tiny_model(tmp_path_factory.mktemp("gpt2") / "m.gguf", vocab=GPT2, layers=1))


@given(text=st.one_of(st.text(), st.text(alphabet="helo wrd'<|endoftext|>1 \n\t", max_size=80)))
@settings(max_examples=500, deadline=None)
def test_byte_level_bpe(gpt2: Generator, text: str) -> None:
    ids = GPT2_REFERENCE.encode(text, add_special_tokens=False).ids
    assert gpt2.tokenizer.encode(text) == ids
    assert gpt2.tokenizer.decode(ids) == GPT2_REFERENCE.decode(ids, skip_special_tokens=True)
    assert "".join(gpt2.tokenizer._deltas([], ids)) == gpt2.tokenizer.decode(ids)


def test_an_unknown_split_pattern_is_named(tmp_path: Path) -> None:
    from dataclasses import replace

    path = tiny_model(tmp_path / "m.gguf", vocab=replace(GPT2, pre="martian"), layers=1)
    with pytest.raises(UnsupportedModelError, match=r"tokenizer\.ggml\.pre.*martian|martian.*tokenizer\.ggml\.pre"):
        Generator(path)
