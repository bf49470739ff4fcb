"""A function that the model calls, and an answer that uses what it gave.

python examples/tools.py
"""

from typing import Literal

from candlewick import Generator


def harbour(boats: Literal["one", "two", "many"], night: bool = False) -> str:
    """What is in the harbour.

    Args:
        boats: How many boats to look for.
        night: Whether to look at night.
    """
    return f"{boats} boats, {'lit' if night else 'in the sun'}"


gen = Generator("demo")  # or the path of a Phi .gguf file, which will know when to call and why
messages = [{"role": "user", "content": "Write a haiku about the sea"}]

answer = gen.generate(messages, tools=[harbour], tool_choice="required", max_tokens=200, seed=1)
messages.append({"role": "assistant", "content": None, "tool_calls": answer.tool_calls})
for call in answer.tool_calls:
    arguments = ", ".join(f"{name}={value!r}" for name, value in call.arguments.items())
    result = harbour(**call.arguments)
    print(f"{call.name}({arguments}) -> {result}")
    messages.append({"role": "tool", "tool_call_id": call.id, "content": result})

for text in gen.stream(messages):
    print(text, end="", flush=True)
print()
