"""What llama.cpp's tokenizer makes of the corpus: `golden/llama_tokenizer.json`.

    python tests/data/make_llama_tokenizer_golden.py        # needs llama-cpp-python 0.3.36, tokenizers, numpy, gguf

For each vocabulary of `tokenizer_vocabularies.py` whose file is there:

    sha256      of llama.cpp's ids of the whole corpus, as `digest` writes them
    differs     {text: ids}, llama.cpp's, where `tokenizers` gives others

llama.cpp adds no BOS here, and recognises special tokens written in the text. It reads each vocabulary from a file with
the `general.name` that `Kind.name` says, by which it tells whether the special tokens are Phi-3's.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from llama_cpp import Llama

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1] / "scripts")]

from make_gguf import Shape  # noqa: E402
from phi3_gguf import write_arrays  # noqa: E402
from tokenizer_corpus import CORPUS  # noqa: E402
from tokenizer_vocabularies import KINDS, Kind, digest  # noqa: E402


def make(kind: Kind) -> dict[str, object]:
    """One vocabulary's entry."""
    vocab = kind.vocab()
    judge = kind.judge(vocab)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vocab.gguf"
        shape = Shape(context=64, embd=64, ffn=64, layers=1, heads=2, kv_heads=2, rope_dim=32, name=kind.name)
        write_arrays(path, shape.metadata() | vocab.metadata(), [])
        llama = Llama(str(path), vocab_only=True, verbose=False)
        found = [llama.tokenize(text.encode(), add_bos=False, special=True) for text in CORPUS]
    differs = {
        text: ids
        for text, ids in zip(CORPUS, found, strict=True)
        if ids != judge.encode(text, add_special_tokens=False).ids
    }
    for text, ids in differs.items():
        print(ascii(text))
        print("   tokenizers", ascii(judge.encode(text, add_special_tokens=False).tokens))
        print("   llama.cpp ", ascii([vocab.tokens[i] for i in ids]))
    return {"sha256": digest(found), "differs": differs}


def main() -> None:
    golden = {}
    for name, kind in KINDS.items():
        if kind.path is not None and not kind.path.exists():
            sys.exit(f"{kind.path} is not there")
        print(f"--- {name}")
        golden[name] = make(kind)
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in golden.items())
    (HERE / "golden" / "llama_tokenizer.json").write_text("{\n" + lines + "\n}\n")
    print({name: len(entry["differs"]) for name, entry in golden.items()}, "of", len(CORPUS))


if __name__ == "__main__":
    main()
