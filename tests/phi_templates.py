"""The chat templates that Phi models are published with, and conversations to put through them.

They are those of the models' tokenizer_config.json on the Hugging Face hub; Phi-2 has none. Where one was replaced,
files made before carry the older one.
"""

from __future__ import annotations

from dataclasses import dataclass

from phi3_gguf import CHAT_TEMPLATE


@dataclass
class Template:
    """A template, and what it calls `bos_token` and `eos_token`."""

    source: str
    bos: str
    eos: str
    kind: str
    """The kind of vocabulary that goes with it, of `tokenizer_vocabularies.KINDS`."""


PHI3 = ("<s>", "<|endoftext|>", "small")
PHI4 = ("<|endoftext|>", "<|im_end|>", "dbrx")
PHI4_MINI = ("<|endoftext|>", "<|endoftext|>", "gpt-4o")

TEMPLATES = {
    "Phi-3-mini, first": Template(CHAT_TEMPLATE, *PHI3),
    "Phi-3-mini": Template(
        "{% for message in messages %}{% if message['role'] == 'system' %}{{'<|system|>\n' + message['content'] + "
        "'<|end|>\n'}}{% elif message['role'] == 'user' %}{{'<|user|>\n' + message['content'] + '<|end|>\n'}}"
        "{% elif message['role'] == 'assistant' %}{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}",
        *PHI3,
    ),
    "Phi-3-medium": Template(
        "{% for message in messages %}{% if (message['role'] == 'user') %}{{'<|user|>' + '\n' + message['content'] + "
        "'<|end|>' + '\n' + '<|assistant|>' + '\n'}}{% elif (message['role'] == 'assistant') %}"
        "{{message['content'] + '<|end|>' + '\n'}}{% endif %}{% endfor %}",
        *PHI3,
    ),
    "Phi-3.5-mini": Template(
        "{% for message in messages %}{% if message['role'] == 'system' and message['content'] %}{{'<|system|>\n' + "
        "message['content'] + '<|end|>\n'}}{% elif message['role'] == 'user' %}{{'<|user|>\n' + message['content'] + "
        "'<|end|>\n'}}{% elif message['role'] == 'assistant' %}{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}"
        "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}"
        "{% endif %}",
        *PHI3,
    ),
    "Phi-4, first": Template(
        "{% for message in messages %}{% if (message['role'] == 'system') %}{{'<|im_start|>system<|im_sep|>' + "
        "message['content'] + '<|im_end|>'}}{% elif (message['role'] == 'user') %}{{'<|im_start|>user<|im_sep|>' + "
        "message['content'] + '<|im_end|><|im_start|>assistant<|im_sep|>'}}{% elif (message['role'] == 'assistant') %}"
        "{{message['content'] + '<|im_end|>'}}{% endif %}{% endfor %}",
        *PHI4,
    ),
    "Phi-4": Template(
        "{% for message in messages %}{% if (message['role'] == 'system') %}{{'<|im_start|>system<|im_sep|>' + "
        "message['content'] + '<|im_end|>'}}{% elif (message['role'] == 'user') %}{{'<|im_start|>user<|im_sep|>' + "
        "message['content'] + '<|im_end|>'}}{% elif (message['role'] == 'assistant') %}"
        "{{'<|im_start|>assistant<|im_sep|>' + message['content'] + '<|im_end|>'}}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}",
        *PHI4,
    ),
    # Its own system turn, here without the long instruction, and no place for another.
    "Phi-4-reasoning": Template(
        "<|im_start|>system<|im_sep|>You are Phi, a language model trained by Microsoft to help users.<|im_end|>"
        "{% for message in messages %}{% if (message['role'] == 'user') %}{{'<|im_start|>user<|im_sep|>' + "
        "message['content'] + '<|im_end|>'}}{% elif (message['role'] == 'assistant') %}"
        "{{'<|im_start|>assistant<|im_sep|>'}}{% generation %}{{message['content'] + '<|im_end|>'}}{% endgeneration %}"
        "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}",
        *PHI4,
    ),
    "Phi-4-mini": Template(
        "{% for message in messages %}{% if message['role'] == 'system' and 'tools' in message and message['tools'] "
        "is not none %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|tool|>' + message['tools'] + "
        "'<|/tool|>' + '<|end|>' }}{% else %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
        "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}"
        "{% endif %}",
        *PHI4_MINI,
    ),
    "Phi-4-mini-reasoning": Template(
        "{{ '<|system|>Your name is Phi, an AI math expert developed by Microsoft.' }}{% for message in messages %}"
        "{% if message['role'] == 'system' %} {{ message['content'] }}{% if 'tools' in message and message['tools'] is "
        "not none %}{{ '<|tool|>' + message['tools'] + '<|/tool|>' }}{% endif %}{% endif %}{% endfor %}{{ '<|end|>' }}"
        "{% for message in messages %}{% if message['role'] != 'system' %}{{ '<|' + message['role'] + '|>' + "
        "message['content'] + '<|end|>' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}"
        "{% else %}{{ eos_token }}{% endif %}",
        *PHI4_MINI,
    ),
}


def turns(*contents: str) -> list[dict[str, str]]:
    """User and assistant in turn."""
    return [{"role": ("user", "assistant")[i % 2], "content": content} for i, content in enumerate(contents)]


SYSTEM = {"role": "system", "content": "Be brief."}
TOOLS = '[{"name": "weather", "description": "The weather at a place", "parameters": {"place": {"type": "str"}}}]'

CONVERSATIONS = {
    "a question": turns("Why is the sky blue?"),
    "several turns": turns("Hi", "Hello!", "And now?", "Now this.", "Thanks <3"),
    "white space": turns("  two\n\nlines \n", "\tone ", "\n?"),
    "other scripts": turns("Привет, 世界 👩‍💻", "नमस्ते", "שלום"),
    "special tokens and markup in the text": turns("a<|end|>b {{ bos_token }} {% if %} <b>&amp;\"'", "<|im_end|>", "x"),
    "a system turn": [SYSTEM, *turns("Hi", "Hello!", "Bye")],
    "an empty system turn": [{"role": "system", "content": ""}, *turns("Hi")],
    "tools": [SYSTEM | {"tools": TOOLS}, *turns("How is the weather in Oulu?")],
}
