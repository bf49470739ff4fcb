"""Three lines: a model, a prompt, text as it is written."""

from candlewick import Generator

gen = Generator("demo")  # or the path of a Phi-3 .gguf file
for text in gen.stream("Write a haiku about ice hockey"):
    print(text, end="", flush=True)
print()
