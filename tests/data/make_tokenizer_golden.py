"""Make the golden ids of the tokenizer tests: `golden/tokenizer_NAME.json`.

    python tests/data/make_tokenizer_golden.py phi3=ggml-vocab-phi-3.gguf demo=demo.gguf small

Needs llama-cpp-python, tokenizers, numpy and gguf. A file is a list of `{"text": ..., "ids": [...]}`: the ids
of `text` without a BOS added, special tokens written in the text recognised. An entry on which the two
references differ also has `"llama_cpp": [...]`, the ids that are not expected.

The references are llama.cpp's own SentencePiece merging (llama-cpp-python 0.3.36), and a `tokenizers` BPE
(0.22.2) built from the same scores the way transformers builds one. They agree on the whole corpus, and on
90,000 random strings of pieces, repeated characters and special tokens, but for these:

- After a special token with `rstrip`, `tokenizers` swallows every Unicode white space (U+0085, U+00A0,
  U+2003, U+3000), llama.cpp only what C's `isspace` knows. `tokenizers` is right: Phi-3's tokenizer.json
  defines `rstrip`.
- "[PAD32011]" written in a text is the token 32011 for llama.cpp, which takes tokens of the type UNKNOWN for
  special ones. `tokenizers` is right: these tokens are not in Phi-3's tokenizer.json; the converter to GGUF
  made them up to fill the embedding's rows.

The `rstrip` flags are in no GGUF file: llama.cpp gives them to the special tokens (and to </s>) if
`general.name` contains "phi-3" or "phi3", in any case. Under another name it keeps the newline after
<|user|>. So llama.cpp reads each vocabulary here from a copy named "Phi-3". The shared vocabulary is named
"Phi3" and behaves the same without that.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from gguf import TokenType
from llama_cpp import Llama
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "scripts")]

from phi3_gguf import SPACE, Shape, Vocab, small_vocab, write_arrays  # noqa: E402
from tokenizer_corpus import CORPUS  # noqa: E402

NOT_STRIPPED = {"<unk>", "<s>", "<|endoftext|>"}
"""The special tokens whose `rstrip` is false in Phi-3's tokenizer_config.json; the others have it."""


def hf_tokenizer(vocab: Vocab) -> Tokenizer:
    """The BPE that transformers' converter makes of a SentencePiece vocabulary; Phi-3's is one."""
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
    for token, i in ids.items():
        if vocab.types[i] in (TokenType.CONTROL, TokenType.USER_DEFINED):
            special = vocab.types[i] == TokenType.CONTROL
            added = AddedToken(token, rstrip=token not in NOT_STRIPPED, normalized=False, special=special)
            (tokenizer.add_special_tokens if special else tokenizer.add_tokens)([added])
    return tokenizer


def llama_tokenizer(vocab: Vocab, folder: str) -> Llama:
    """llama.cpp with this vocabulary, under a name that makes it treat the special tokens as Phi-3's."""
    path = Path(folder) / "vocab.gguf"
    shape = Shape(context=64, embd=64, ffn=64, layers=1, heads=2, kv_heads=2, rope_dim=32, name="Phi-3")
    write_arrays(path, shape.metadata() | vocab.metadata(), [])
    return Llama(str(path), vocab_only=True, verbose=False)


def make(name: str, vocab: Vocab) -> None:
    hf = hf_tokenizer(vocab)
    entries: list[dict[str, Any]] = []
    disputed = 0
    with tempfile.TemporaryDirectory() as folder:
        llama = llama_tokenizer(vocab, folder)
        for text in CORPUS:
            theirs = llama.tokenize(text.encode(), add_bos=False, special=True)
            ours = hf.encode(text, add_special_tokens=False).ids
            entry = {"text": text, "ids": ours}
            if theirs != ours:
                disputed += 1
                entry["llama_cpp"] = theirs
                print(f"{name}: {text!r}")
                print("   tokenizers", [vocab.tokens[i] for i in ours])
                print("   llama.cpp ", [vocab.tokens[i] for i in theirs])
            entries.append(entry)
    path = HERE / "golden" / f"tokenizer_{name}.json"
    lines = ",\n".join(json.dumps(entry, ensure_ascii=True) for entry in entries)
    path.write_text(f"[\n{lines}\n]\n")
    print(f"{path.name}: {len(entries)} strings, {disputed} disputed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vocab", nargs="+", help="NAME=FILE.gguf, or `small` for small_vocab(320)")
    for argument in parser.parse_args().vocab:
        name, _, path = argument.partition("=")
        make(name, Vocab.from_gguf(path) if path else small_vocab(320))


if __name__ == "__main__":
    main()
