"""What llama.cpp makes of the golden models: `golden/llama.json`.

    python tests/data/make_llama_golden.py        # needs llama-cpp-python 0.3.36, numpy

For each model of `make_golden.py`, each prompt and each context size that is of interest, the ids that llama.cpp
chooses greedily, with keys and values in f32; null where it cannot load the file. It takes the short or the long
factors of long rope once, by the size of its context, of which it knows only multiples of 256. So these models are run
as they are ("long", a context of 512), and from a copy whose original context is 512 too ("short").
"""

from __future__ import annotations

import json
import struct
import tempfile
from pathlib import Path

import numpy as np
from llama_cpp import Llama

GOLDEN = Path(__file__).resolve().parent / "golden"
GREEDY = 50
N_CTX = 512
ORIGINAL = {"longrope-f16": 128, "stretched-f16": 64}
"""The original contexts of the models with long rope."""


def greedy(path: Path, prompts: list[list[int]]) -> list[list[int]] | None:
    """GREEDY ids for each prompt."""
    try:
        llama = Llama(str(path), n_ctx=N_CTX, n_threads=1, n_batch=N_CTX, type_k=0, type_v=0, verbose=False)
    except ValueError:
        return None
    out = []
    for prompt in prompts:
        llama.reset()
        llama.eval(prompt)
        ids: list[int] = []
        while len(ids) < GREEDY:
            logits = np.ctypeslib.as_array(llama._ctx.get_logits(), shape=(llama.n_vocab(),))
            ids.append(int(logits.argmax()))
            llama.eval(ids[-1:])
        out.append(ids)
    return out


def with_original(path: Path, found: int, wanted: int, folder: str) -> Path:
    """A copy with another original context: the four bytes after the key and its type."""
    key = b"phi3.rope.scaling.original_context_length" + struct.pack("<I", 4)
    data = path.read_bytes()
    assert data.count(key + struct.pack("<I", found)) == 1
    copy = Path(folder) / path.name
    copy.write_bytes(data.replace(key + struct.pack("<I", found), key + struct.pack("<I", wanted)))
    return copy


def main() -> None:
    found: dict[str, dict[str, dict[str, list[int]] | None]] = {}
    for path in sorted(GOLDEN.glob("*.npz")):
        golden = np.load(path)
        name, gguf = path.stem, path.with_suffix(".gguf")
        prompts = {str(length): golden[f"prompt_{length}"].tolist() for length in golden["prompts"]}
        with tempfile.TemporaryDirectory() as folder:
            files = {"long" if name in ORIGINAL else "plain": gguf}
            if name in ORIGINAL:
                files["short"] = with_original(gguf, ORIGINAL[name], N_CTX, folder)
            found[name] = {}
            for label, file in files.items():
                ids = greedy(file, list(prompts.values()))
                found[name][label] = None if ids is None else dict(zip(prompts, ids, strict=True))
                for length, chosen in (found[name][label] or {}).items():
                    n = int((np.array(chosen) == golden[f"greedy_{length}"]).cumprod().sum())
                    print(f"{name}, {label}, {length} ids: the first {n} as transformers")
    lines = ",\n".join(f" {json.dumps(name)}: {json.dumps(value)}" for name, value in found.items())
    (GOLDEN / "llama.json").write_text("{\n" + lines + "\n}\n")


if __name__ == "__main__":
    main()
