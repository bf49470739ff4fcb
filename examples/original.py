"""The console program that candlewick grew from, through the public API: its prompt and its parameters.

python examples/original.py Phi-3-mini-4k-instruct-q4.gguf
"""

import sys

from candlewick import Generator

gen = Generator(sys.argv[1] if len(sys.argv) > 1 else "demo", engine="original")
prompt = "<|user|>\nWrite a haiku about ice hockey<|end|>\n<|assistant|>"
stream = gen.stream(prompt, raw=True, max_tokens=100, temperature=1.0, repetition_penalty=1.2, repeat_last_n=64)
for text in stream:
    print(text, end="", flush=True)
print(f"\n\n{stream.usage.completion_tokens} tokens, seed {stream.seed}", file=sys.stderr)
