"""Vocabularies of the kinds that Phi models have, each with the `tokenizers` pipeline that its model is published with.

They are learnt from the corpus itself, across the borders of words: where a word is cut in the wrong place, or not cut,
pieces that lie across the place are missed or used, and the ids are others.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gguf import TokenType
from make_gguf import Vocab, small_vocab, spm_vocab
from phi3_gguf import SPACE
from tokenizer_corpus import CORPUS
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.pre_tokenizers import ByteLevel

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "python" / "candlewick" / "demo.gguf"
PHI3 = ROOT.parent / "shared" / "data" / "ggml-vocab-phi-3.gguf"

PATTERNS = {
    "dbrx": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
        r"|\s+(?!\S)|\s+"
    ),
    "gpt-4o": (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
        r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
        r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
}
"""How words are split, in the tokenizer.json of Phi-4 and of Phi-4-mini. Phi-2's split is that of GPT-2, which
`tokenizers` has in `ByteLevel`."""

PHI4_SPECIALS = ["<|dummy_0|>", "<|endoftext|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|dummy_1|>"]
PHI4_SPECIALS += ["<|im_start|>", "<|im_end|>", "<|im_sep|>"]
PHI4_MINI_SPECIALS = ["<|endoftext|>", "<|endofprompt|>", "<|assistant|>", "<|end|>", "<|user|>", "<|system|>"]
PHI4_MINI_SPECIALS += ["<|tool|>", "<|/tool|>", "<|tool_call|>", "<|/tool_call|>", "<|tool_response|>", "<|tag|>"]
PHI2_RUNS = [" " * n for n in range(31, 1, -1)] + ["\t" * n for n in range(9, 1, -1)]
"""Phi-2's added tokens that are no special ones."""


LESSONS = [text for text in CORPUS if text and ">" not in text]
"""What pieces are learnt from: no special token may become one."""


def learn(texts: Iterable[Sequence[str]], rounds: int, per_round: int) -> list[tuple[str, str]]:
    """The most frequent neighbours, joined, and so on: many merges a round, where BPE's own training takes one."""
    merges: dict[tuple[str, str], None] = {}
    for _ in range(rounds):
        pairs = Counter(pair for text in texts for pair in itertools.pairwise(text))
        best = dict.fromkeys(sorted(pairs, key=lambda pair: (-pairs[pair], pair))[:per_round])
        merges |= best
        texts = [joined(text, best) for text in texts]
    return list(merges)


def joined(text: Sequence[str], pairs: Container[tuple[str, str]]) -> list[str]:
    """`text` with those pairs made one symbol, from the left."""
    out: list[str] = []
    at = 0
    while at < len(text):
        n = 2 if tuple(text[at : at + 2]) in pairs else 1
        out.append("".join(text[at : at + n]))
        at += n
    return out


def sentencepiece() -> Vocab:
    """As Phi-3's: letters of many scripts, runs of spaces, words, and bytes for everything else."""
    texts = [SPACE + text.replace(" ", SPACE) for text in LESSONS]
    letters = {char for char, n in Counter("".join(texts)).items() if n > 3 and char.isprintable()}
    runs = ["".join(run) for text in texts for kept, run in itertools.groupby(text, letters.__contains__) if kept]
    pieces = dict.fromkeys(left + right for left, right in learn(runs, 4, 500))
    return spm_vocab([*pieces, *sorted(letters)])


def byte_level(pre: str, specials: list[str], user_defined: Sequence[str] = ()) -> Vocab:
    """As GPT-2's: 256 bytes, and merges; of any neighbours, so that a word that ends elsewhere has other ids."""
    write = ByteLevel(add_prefix_space=False, use_regex=False)
    merges = learn([write.pre_tokenize_str(text)[0][0] for text in LESSONS], 4, 700)
    pieces = list(dict.fromkeys([*sorted(ByteLevel.alphabet()), *(left + right for left, right in merges)]))
    kinds = [TokenType.NORMAL] * len(pieces) + [TokenType.CONTROL] * len(specials)
    kinds += [TokenType.USER_DEFINED] * len(user_defined)
    tokens = [*pieces, *specials, *user_defined]
    end = tokens.index("<|endoftext|>")
    return Vocab(
        tokens=tokens,
        types=[int(kind) for kind in kinds],
        bos_id=end,
        eos_id=end,
        unk_id=None,
        add_bos=False,
        model="gpt2",
        pre=pre,
        merges=[" ".join(pair) for pair in merges],
        chat_template=None,
    )


def sentencepiece_judge(vocab: Vocab) -> Tokenizer:
    """The BPE that transformers' converter makes of a SentencePiece vocabulary; Phi-3's is one."""
    assert vocab.types is not None and vocab.scores is not None
    ids = {token: i for i, token in enumerate(vocab.tokens) if vocab.types[i] != TokenType.UNUSED}
    merges = []
    for piece in ids:
        splits = ((piece[:i], piece[i:]) for i in range(1, len(piece)))
        score = vocab.scores[ids[piece]]
        merges += [(left, right, score) for left, right in splits if left in ids and right in ids]
    # transformers.convert_slow_tokenizer.generate_merges: by score, then the longer left, then right half
    merges.sort(key=lambda merge: (ids[merge[0]], ids[merge[1]]))
    merges.sort(key=lambda merge: (merge[2], len(merge[0]), len(merge[1])), reverse=True)
    model = models.BPE(ids, [merge[:2] for merge in merges], unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    # rstrip is false for three, in Phi-3's tokenizer_config.json; the others have it.
    add(tokenizer, vocab, rstrip=lambda token: token not in ("<unk>", "<s>", "<|endoftext|>"))
    return tokenizer


def byte_level_judge(vocab: Vocab) -> Tokenizer:
    """The BPE of tokenizer.json, with the split that belongs to the vocabulary's name."""
    assert vocab.types is not None and vocab.merges is not None
    ids = {token: i for i, token in enumerate(vocab.tokens) if vocab.types[i] == TokenType.NORMAL}
    tokenizer = Tokenizer(models.BPE(ids, [tuple(merge.split(" ")) for merge in vocab.merges]))
    if vocab.pre in PATTERNS:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(PATTERNS[vocab.pre]), "isolated"),
                ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    else:
        tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    # All of Phi-4's added tokens take the white space on both sides, those of Phi-4-mini that mark turns what follows.
    phi4 = vocab.pre == "dbrx"
    turns = ("<|user|>", "<|assistant|>", "<|system|>", "<|end|>")
    add(tokenizer, vocab, rstrip=lambda token: phi4 or token in turns, lstrip=phi4)
    return tokenizer


def add(tokenizer: Tokenizer, vocab: Vocab, rstrip: Callable[[str], bool], lstrip: bool = False) -> None:
    """The control and user-defined tokens, in the order of their ids."""
    assert vocab.types is not None
    for token, kind in zip(vocab.tokens, vocab.types, strict=True):
        if kind in (TokenType.CONTROL, TokenType.USER_DEFINED):
            special = kind == TokenType.CONTROL
            added = AddedToken(token, rstrip=rstrip(token), lstrip=lstrip, normalized=False, special=special)
            (tokenizer.add_special_tokens if special else tokenizer.add_tokens)([added])


@dataclass
class Kind:
    """One of the vocabularies."""

    vocab: Callable[[], Vocab]
    judge: Callable[[Vocab], Tokenizer]
    name: str
    """`general.name`: llama.cpp gives the special tokens their `rstrip` if it contains "phi-3" or "phi3"."""
    path: Path | None = None
    """The file that it is from."""


KINDS = {
    "small": Kind(small_vocab, sentencepiece_judge, "Phi-3"),
    "sentencepiece": Kind(sentencepiece, sentencepiece_judge, "Phi-3"),
    "demo": Kind(lambda: Vocab.from_gguf(DEMO), sentencepiece_judge, "Phi-3", DEMO),
    "phi3": Kind(lambda: Vocab.from_gguf(PHI3), sentencepiece_judge, "Phi-3", PHI3),
    "gpt-2": Kind(lambda: byte_level("gpt-2", ["<|endoftext|>"], PHI2_RUNS), byte_level_judge, "Phi-2"),
    "dbrx": Kind(lambda: byte_level("dbrx", PHI4_SPECIALS), byte_level_judge, "Phi-4"),
    "gpt-4o": Kind(lambda: byte_level("gpt-4o", PHI4_MINI_SPECIALS), byte_level_judge, "Phi-4-mini"),
}
"""`phi3` is Phi-3's own, which is not in the repository."""


def digest(ids_of_texts: Iterable[Sequence[int]]) -> str:
    """SHA-256 of many texts' ids: in decimal, spaces between ids and a line for each text."""
    lines = (" ".join(map(str, ids)) + "\n" for ids in ids_of_texts)
    return hashlib.sha256("".join(lines).encode()).hexdigest()
