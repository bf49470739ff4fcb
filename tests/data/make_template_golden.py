"""The prompts that transformers makes of conversations: `golden/templates.json`.

    python tests/data/make_template_golden.py        # needs transformers 4.57 and Jinja2 3.1

For each template and each conversation of `phi_templates.py`, the prompt for the assistant's next turn. Where a
template drops the system turn without a word, the prompt is that of the conversation with its text before the first
question, and `moved` is true; where it drops tools, there is none.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from transformers.utils.chat_template_utils import render_jinja_template

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1] / "scripts")]

from phi_templates import CONVERSATIONS, TEMPLATES, Template  # noqa: E402


def render(template: Template, messages: list[dict[str, str]]) -> str:
    texts, _ = render_jinja_template(
        conversations=[messages],
        chat_template=template.source,
        add_generation_prompt=True,
        bos_token=template.bos,
        eos_token=template.eos,
    )
    return str(texts[0])


def prompt(template: Template, messages: list[dict[str, str]]) -> dict[str, object] | None:
    text = render(template, messages)
    system = messages[0]["content"] if messages[0]["role"] == "system" else ""
    if "tools" in messages[0] and messages[0]["tools"] not in text:
        return None
    if system in text:
        return {"text": text, "moved": False}
    first = messages[1] | {"content": f"{system}\n\n{messages[1]['content']}"}
    return {"text": render(template, [first, *messages[2:]]), "moved": True}


def main() -> None:
    golden = {
        name: {label: prompt(template, messages) for label, messages in CONVERSATIONS.items()}
        for name, template in TEMPLATES.items()
    }
    (HERE / "golden" / "templates.json").write_text(json.dumps(golden, indent=1) + "\n")
    for name, prompts in golden.items():
        print(name, {label: found and found["moved"] for label, found in prompts.items()})


if __name__ == "__main__":
    main()
