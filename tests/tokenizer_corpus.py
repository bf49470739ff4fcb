"""The strings that tokenizers are compared on: `CORPUS`, each once, in a fixed order.

The first few hundred are written down; the others are drawn, with a fixed seed, from all of Unicode and from parts that
make words hard to split. They are the same on every machine and in every Python.
"""

# ruff: noqa: E501, RUF001

import random

SCRIPTS = [
    "The quick brown fox jumps over the lazy dog.",
    "Voix ambiguë d’un cœur qui, au zéphyr, préfère les jattes de kiwis.",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich.",
    "El pingüino Wenceslao hizo kilómetros bajo exhaustiva lluvia y frío; ¿añoraba a su querido cachorro?",
    "Luís argüia à Júlia que «brações, fé, chá, óxido, pôr, zângão» eram palavras do português.",
    "Pchnąć w tę łódź jeża lub ośm skrzyń fig.",
    "Příliš žluťoučký kůň úpěl ďábelské ódy.",
    "Árvíztűrő tükörfúrógép",
    "Pijamalı hasta yağız şoföre çabucak güvendi. İstanbul, ıssız",
    "Đêm nay trăng sáng quá, em ạ. Tiếng Việt có dấu.",
    "Kæmi ný öxi hér, ykist þjófum nú bæði víl og ádrepa.",
    "Съешь же ещё этих мягких французских булок, да выпей чаю.",
    "Чуєш їх, доцю, га? Кумедна ж ти, прощайся без ґольфів!",
    "Љубазни фењерџија чађавог лица хоће да ми покаже штос.",
    "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία. ὀρθογραφία",
    "Գիտություն և արվեստ",
    "ქართული ენა მშვენიერია",
    "דג סקרן שט בים מאוכזב ולפתע מצא לו חברה",
    "שָׁלוֹם עֲלֵיכֶם",
    "نص حكيم له سر قاطع وذو شأن عظيم مكتوب على ثوب أخضر",
    "مَرْحَبًا بِكُمْ ١٢٣٤٥",
    "یک متن فارسی با نیم‌فاصله می‌نویسم ۱۲۳",
    "اُردو زبان بہت خوبصورت ہے",
    "ऋषियों को सताने वाले दुष्ट राक्षसों के राजा रावण का सर्वनाश",
    "আমি বাংলায় গান গাই",
    "ਪੰਜਾਬੀ ਭਾਸ਼ਾ",
    "ગુજરાતી લિપિ",
    "தமிழ் மொழி அழகானது",
    "తెలుగు భాష",
    "ಕನ್ನಡ ಭಾಷೆ",
    "മലയാളം ഭാഷ",
    "සිංහල අක්ෂර",
    "เป็นมนุษย์สุดประเสริฐเลิศคุณค่า",
    "ພາສາລາວ",
    "មនុស្សទាំងអស់កើតមក",
    "မြန်မာဘာသာ",
    "བོད་ཡིག",
    "አማርኛ ቋንቋ",
    "ᏣᎳᎩ ᎦᏬᏂᎯᏍᏗ",
    "ᐃᓄᒃᑎᑐᑦ",
    "Монгол ᠮᠣᠩᠭᠣᠯ",
    "我能吞下玻璃而不伤身体。",
    "我能吞下玻璃而不傷身體。黃收弘給还边",
    "いろはにほへと ちりぬるを げべ",
    "イロハニホヘト チリヌルヲ ｶﾀｶﾅ",
    "私はガラスを食べられます。それは私を傷つけません。",
    "나는 유리를 먹을 수 있어요. 그래도 아프지 않아요",
    "한글 한글",
    "𠜎𠜱𠝹𠱓 rare han",
    "𐍈 𐌰𐌱 gothic 𒀀 cuneiform 𓀀 hieroglyph",
    "ⵜⴰⵎⴰⵣⵉⵖⵜ",
    "ᚠᛇᚻ᛫ᛒᛦᚦ runes",
    "⠓⠑⠇⠇⠕ braille",
    "latin, кириллица, ελληνικά, 漢字, עברית, العربية in one line",
    "ﬁ ﬂ ﬃ ligatures, ＦＵＬＬＷＩＤＴＨ ＡＢＣ１２３",
    "𝐁𝐨𝐥𝐝 𝒮𝒸𝓇𝒾𝓅𝓉 𝔉𝔯𝔞𝔨𝔱𝔲𝔯 math letters",
    "e\u0301 é combining; a\u030a å; n\u0303 ñ",
    "Z̸̢̛a̵̡l̶̨g̷̛o̸ t̴e̷x̶t̸",
]

EMOJI = [
    "😀",
    "Hello 👋 world 🌍!",
    "🏒🥅 ice hockey",
    "👨‍👩‍👧‍👦 family (ZWJ)",
    "👩🏽‍💻🧑🏿‍🚀👨🏻‍🎤",
    "🏳️‍🌈🏴‍☠️🏴󠁧󠁢󠁳󠁣󠁴󠁿",
    "🇫🇮🇯🇵🇺🇸 flags",
    "1️⃣2️⃣#️⃣*️⃣ keycaps",
    "❤️ ❤ ♥️ ☀︎ ☀️",
    "👍👍🏻👍🏼👍🏽👍🏾👍🏿",
    "🤷‍♀️ 🫠 🪿 🩷",
    "text😀no😀spaces",
    "😀" * 20,
]

WHITESPACE = [
    *(" " * n for n in (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 40)),
    *(" " * n + "x" for n in (1, 2, 3, 4, 8, 15, 16, 17, 20)),
    *("x" + " " * n for n in (1, 2, 3, 16, 17)),
    *("a" + " " * n + "b" for n in (2, 3, 4, 5, 6, 7, 8, 9, 16, 17, 18, 33)),
    "\n",
    "\n\n",
    "\n\n\n\n",
    "\t",
    "\t\t\t",
    "\r\n",
    " \n",
    "\n ",
    " \n \n ",
    "a\nb",
    "a \n b",
    "a\tb\tc",
    "\ta",
    "a\n\n\nb",
    "line one\nline two\r\nline three\rline four",
    "trailing space ",
    " leading space",
    "  two leading spaces",
    "\u00a0no-break\u00a0space\u00a0",
    "\u3000ideographic\u3000space",
    "\u2003em\u2009thin\u200ahair\u202fnarrow",
    "zero\u200bwidth\u200cnon\u200djoiner\u2060word\ufeffbom",
    "\ufeffstarts with a byte order mark",
    "a\u2028b\u2029c\u0085d",
    "\u2581",
    "\u2581\u2581",
    "a\u2581b",
    " \u2581 ",
    "\u2581the\u2581 the",
]

CONTROLS = [
    "\x00",
    "a\x00b",
    "\x01\x02\x03\x1b[31mred\x1b[0m",
    "\x7f\x80\x9f",
    "\x08\x0b\x0c",
    "bell\x07",
    "\ufffd",
    "\ufffe\uffff",
    "\U0010ffff",
    "\u202eright to left\u202c",
    "\u0378 unassigned \U000e0001 tag",
    "\ue000\uf8ff private use \U000f0000",
]

DIGITS = [
    "0",
    "7",
    "42",
    "1234567890",
    "3.14159265358979",
    "-1.5e-10",
    "1,234,567.89",
    "0xDEADBEEF 0b1010 0o777",
    "2024-02-29T23:59:59Z",
    "+358 40 123 4567",
    "192.168.0.1:8080 ::1",
    "½ ¾ ² ³ Ⅷ ① ⑳ 一二三 ٣ ३",
    "00000000000000000000",
    "99999999999999999999999999999999",
    "$1.00 €2,50 £3 ¥400 ₿5 ₹6",
    "7 + 8 = 15; 7*8=56; 7/8≈0.875",
]

CODE = [
    "def f(x):\n    return x + 1\n",
    "def f(x):\n\tif x:\n\t\treturn None\n",
    "for (int i = 0; i < n; ++i) { a[i] += b[i]; }",
    'fn main() {\n    println!("{}", 1_000);\n}\n',
    "#include <stdio.h>\n\nint main(void) {\n        return 0;\n}\n",
    "SELECT * FROM t WHERE a = 'b' AND c <> \"d\";",
    '<div class="a">\n  <p>Hi &amp; bye</p>\n</div>',
    '{"a": [1, 2, {"b": null}], "c": true}',
    "$ ls -la | grep '^d' > /dev/null 2>&1",
    "https://example.com/a/b?c=d&e=f#g",
    "user@example.com",
    "C:\\Users\\name\\file.txt",
    "a && b || !c ? d : e",
    "x = lambda *a, **k: (yield)",
    "\\frac{1}{2} \\sum_{i=0}^{n} x_i^2",
    "| a | b |\n|---|---|\n| 1 | 2 |",
    "- [ ] todo\n- [x] done\n  1. one\n     * nested",
    "```python\nprint('hi')\n```",
    "camelCaseIdentifier snake_case_identifier SCREAMING_CASE kebab-case",
    "();{}[]<>!@#$%^&*-_=+|\\:;\"',./?`~",
    "<0x0A>",
    "<0x00><0xFF>",
    "==========",
    "=" * 3,
    "=" * 5,
    "=" * 7,
    "-" * 17,
    "." * 11,
    "_" * 6,
    "#" * 9,
    "*" * 13,
    "a" * 3,
    "a" * 5,
    "a" * 7,
    "aaaa aaaaa aaaaaa",
    "o" * 9,
    "z" * 9,
    "ab" * 9,
    "hahahahahaha",
    "lololol",
    "www.www.www",
    "!!!???!?!?",
]

WORDS = [
    "a",
    "I",
    "the",
    "The",
    "THE",
    "Hello",
    "Hello, world!",
    "hello world",
    "Hello  world",
    "it's we're don't I'll you've he'd",
    "IT'S WE'RE DON'T I'LL YOU'VE HE'D I'M",
    "it'\u017f 'S'\u017f",
    "antidisestablishmentarianism",
    "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft",
    "Llanfairpwllgwyngyllgogerychwyrndrobwllllantysiliogogogoch",
    "lopadotemachoselachogaleokranioleipsanodrimhypotrimmatosilphiokarabomelitokatakechymenokichlepikossyphophattoper",
    "supercalifragilisticexpialidocious" * 6,
    "xqzjvkw" * 30,
    "the" * 50,
    "e" * 200,
    "qwertyuiopasdfghjklzxcvbnm",
    "the dog and the girl went into the forest",
    "once upon a time",
    "Write a haiku about ice hockey",
    "Silent skates carve ice,\nsticks clash beneath the bright lights—\nroar, the puck is home.",
    "“Curly quotes” — and – dashes… ‘single’ «guillemets»",
    "™ © ® § ¶ † ‡ • ° ± × ÷ ≠ ≤ ≥ ∞ √ ∫ ∂ ∑ ∏ → ← ↔ ⇒",
    "tokenization, detokenization, retokenizations",
    "New York, Los Angeles, São Paulo, 東京, Москва",
    "¿Qué? ¡Sí! ¿¡Cómo!?",
    "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "aBcDeFgHiJ",
    "éèêëàâîïôûùüçÉÈÊ",
]

SPECIALS = [
    "<|user|>\nHi<|end|>\n<|assistant|>",
    "<|user|>\nHi<|end|>\n<|assistant|>\n",
    "<|user|>Hi<|end|><|assistant|>",
    "<|user|> Hi <|end|> <|assistant|> ",
    "<|system|>\nYou are helpful.<|end|>\n<|user|>\nWhat is 2+2?<|end|>\n<|assistant|>\n4<|end|>\n<|user|>\nSure?<|end|>\n"
    "<|assistant|>\n",
    "<s><|user|>\nHi<|end|>\n<|assistant|>\n",
    "<s> <|user|>\nWrite a haiku about ice hockey<|end|>\n<|assistant|>\n",
    "<s>",
    "</s>",
    "<unk>",
    "<|endoftext|>",
    "<|end|>",
    "<|user|>",
    "<|assistant|>",
    "<|system|>",
    "<|placeholder1|> x<|placeholder6|> y",
    "<s>a",
    "<s> a",
    "<s>  a",
    "</s>a",
    "</s> a",
    "</s>\n a",
    "a</s>",
    "a </s>",
    "<unk>a",
    "<unk> a",
    "a<unk>b",
    "<|endoftext|>a",
    "<|endoftext|> a",
    "<|endoftext|>\na",
    "a<|endoftext|>",
    "<|end|>a",
    "<|end|> a",
    "<|end|>\n\n a",
    "<|end|> \t\r\n\v\f a",
    "<|user|>\t\tindented",
    "a <|end|> b",
    "a\n<|end|>",
    "<|end|><|end|><|end|>",
    "<|end|> <|end|>\n<|end|>",
    "<s><s>",
    "<s> <s>",
    "<s></s><unk>",
    "<|user|> ",
    "<|user|>\n",
    "<|user|>\n\n\n",
    " <|user|>",
    "\n<|user|>",
    "  <|user|>  x",
    "<|user|",
    "|user|>",
    "<|User|>",
    "<| user |>",
    "< |user|>",
    "<<|user|>>",
    "<|user|><|",
    "<|user<|user|>",
    "<|<|end|>|>",
    "<|im_start|>user<|im_end|>",
    "[INST] hi [/INST]",
    "<s",
    "s>",
    "<s >",
    "</s",
    "<S>",
    "the <|end|>the<|end|> the",
    "<|assistant|>\n😀",
    "<|assistant|>\u2581x",
    "é<|end|>é",
]

DISPUTED = [
    "<|user|>\u00a0x",
    "<|user|>\u3000x",
    "<|end|>\u2003\n x",
    "<|end|>\n\u00a0\n x",
    "<|assistant|>\u0085x",
    "[PAD32011]",
    "[PAD32063] x",
]
"""On some of these llama.cpp and tokenizers differ: see `explained` in `test_tokenizer.py`."""

PHI4_SPECIALS = [
    "<|im_start|>system<|im_sep|>Be brief.<|im_end|><|im_start|>user<|im_sep|>Hi<|im_end|><|im_start|>assistant<|im_sep|>",
    "<|im_start|> user <|im_sep|> \n Hi \n <|im_end|> x",
    "a <|im_end|>",
    "<|im_start",
    "<|im_start|><|im_start|>",
    "<|fim_prefix|>def f(): <|fim_suffix|> return<|fim_middle|>",
    "<|dummy_0|> <|dummy_1|>",
    '<|system|>Tools:<|tool|>[{"name": "f", "parameters": {}}]<|/tool|><|end|><|user|>Go<|end|><|assistant|>',
    "<|tool_call|>[]<|/tool_call|> <|tool_response|> x",
    "<|/tool|>\n <|tool|>\t x",
    "<|endofprompt|> a <|endofprompt|>",
]


def steps(first: int, last: int, step: int, n: int) -> list[tuple[int, int]]:
    """Code points from `first` up to `last`, in ranges of `step`, `n` texts from each."""
    return [(at, min(at + step, last)) for at in range(first, last, step) for _ in range(n)]


RANGES = [
    # Everything from Latin-1 to the symbols, and the scripts after the ideographs.
    *steps(0x80, 0x3100, 0x40, 2),
    *steps(0xA000, 0xAC00, 0x40, 2),
    *steps(0xF900, 0xFFF0, 0x80, 2),
    # Ideographs and Hangul: far more characters, all of one kind.
    *steps(0x3100, 0xA000, 0x700, 1),
    *steps(0xAC00, 0xD800, 0x700, 1),
    # Scripts of the second plane, letters of mathematics, emoji, rare ideographs, tags, private use.
    *steps(0x10000, 0x12000, 0x80, 1),
    *steps(0x12000, 0x1D000, 0x1000, 1),
    *steps(0x1D000, 0x1E000, 0x80, 1),
    *steps(0x1E000, 0x1FC00, 0x40, 2),
    *steps(0x20000, 0x32000, 0x6000, 1),
    *steps(0xE0000, 0xE0200, 0x80, 1),
    *steps(0xF0000, 0x110000, 0x10000, 1),
]


def script(rng: random.Random, first: int, end: int) -> str:
    """Words of characters from one range, assigned or not, between marks and spaces."""
    words = (
        "".join(chr(rng.randrange(first, end)) for _ in range(rng.randint(1, 6))) for _ in range(rng.randint(1, 5))
    )
    return "".join(word + rng.choice([" ", " ", ", ", "", "a", "7", "\u0301", "'s ", "\n"]) for word in words)


ATOMS = [
    *(
        "a",
        "I",
        "the",
        "Hello",
        "WORLD",
        "camelCase",
        "HTTPServer",
        "snake_case",
        "x1",
        "don",
        "naïve",
        "ÉCOLE",
        "Straße",
    ),
    *("'s", "'S", "'re", "'LL", "'d", "'ve", "'m", "'t", "'x", "’s", "''", '"', "`"),
    *("0", "7", "12", "345", "6789", "3.14", "1,000", "½", "²", "٣", "४", "Ⅷ"),
    *(
        "!",
        "?!",
        "...",
        "—",
        "–",
        "(",
        ")",
        "[]",
        "{}",
        "//",
        "/",
        "\\",
        "#",
        "==",
        "->",
        "::",
        "&&",
        "@",
        "$",
        "%",
        "_",
        "-",
        "~",
        "|",
    ),
    *(
        " ",
        " ",
        " ",
        " ",
        "  ",
        "   ",
        "\n",
        "\n\n",
        "\r\n",
        "\r",
        "\t",
        "\t\t",
        " \n",
        "\n ",
        "\u00a0",
        "\u2003",
        "\u3000",
        "\u0085",
        "\u200b",
        "\v",
    ),
    *(
        "мир",
        "МИР",
        "Ελλάδα",
        "שלום",
        "سلام",
        "नमस्ते",
        "สวัสดี",
        "你好",
        "世界",
        "こんにちは",
        "カタカナ",
        "안녕",
        "ქართ",
        "Ⴀ",
    ),
    *(
        "ǅ",
        "ǈ",
        "ʰ",
        "ª",
        "ˇ",
        "\u0301",
        "\u0308",
        "\u20dd",
        "\u094d",
        "ı",
        "İ",
        "\u017f",
        "\u212a",
        "ß",
        "\u1e9e",
        "ﬁ",
        "Ａ",
        "ａ",
        "𝐀",
        "𝐚",
        "𐐀",
        "𐐨",
    ),
    *(
        "😀",
        "👍🏽",
        "👩‍💻",
        "🏳️‍🌈",
        "🇫🇮",
        "1️⃣",
        "❤️",
        "\u200d",
        "\ufe0f",
        "\ufffd",
        "\ufeff",
        "\x00",
        "\x1b",
        "\ue000",
        "\U0010fffd",
    ),
    *(
        "<|user|>",
        "<|end|>",
        "<|assistant|>",
        "<|system|>",
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_sep|>",
        "<|im_end|>",
    ),
    *("<s>", "</s>", "<unk>", "<|tool|>", "<|/tool|>", "<|", "|>", "<", ">", "▁", "Ġ", "Ċ", "<0x0A>"),
]
"""What texts are put together from: ends of words, contractions, cases, marks, runs of white space, special tokens."""


def mixed(rng: random.Random) -> str:
    """Two to sixteen atoms in a row."""
    return "".join(rng.choice(ATOMS) for _ in range(rng.randint(2, 16)))


def spaced(rng: random.Random) -> str:
    """Runs of white space before, between and after words, punctuation and digits."""
    runs = [" ", "\n", "\t", "\r\n", "\u00a0", "\u3000"]
    parts = ["a", "Word", "7", "!", "é", "中", "'s", ""]
    gap = lambda: "".join(rng.choice(runs) * rng.choice([1, 1, 2, 3, 4, 7, 16]) for _ in range(rng.randint(1, 3)))  # noqa: E731
    return "".join(rng.choice(parts) + gap() for _ in range(rng.randint(1, 4))) + rng.choice(parts)


def code(rng: random.Random) -> str:
    """Lines that look like a program, at some depth."""
    line = ["if x[{0}] == {1}:", "return f({0}, *{1})", "a{0} += b{1};", "// TODO({0}): fix #{1}", 'let s = "{0}\\n{1}";', "</div>", "}}", "", "@app.get('/{0}/{1}')", "x{0}->y.z<{1}>()"]  # fmt: skip
    indent = rng.choice(["    ", "  ", "\t"])
    return rng.choice(["\n", "\r\n"]).join(
        indent * rng.randint(0, 5)
        + rng.choice(line).format(rng.randint(0, 99), rng.randint(0, 9999))
        + rng.choice(["", "", " "])
        for _ in range(rng.randint(1, 5))
    )


def damaged(rng: random.Random) -> str:
    """Bytes that are no UTF-8, as they are read with errors="replace"."""
    whole = rng.choice(["héllo wörld", "日本語のテキスト", "emoji 😀👍 end", "Привет, мир"]).encode()
    cut = bytes(b for b in whole if rng.random() > 0.25) + bytes(rng.randrange(256) for _ in range(rng.randint(0, 4)))
    return cut.decode("utf-8", "replace")


def anywhere(rng: random.Random) -> str:
    """Characters from all of Unicode but the surrogates."""
    points = (
        rng.choice([rng.randrange(0x110000), rng.randrange(0x3000), rng.randrange(0x80)])
        for _ in range(rng.randint(1, 12))
    )
    return "".join(chr(point) for point in points if not 0xD800 <= point < 0xE000)


def drawn() -> list[str]:
    rng = random.Random(7)
    texts = [script(rng, first, end) for first, end in RANGES]
    for kind, n in ((mixed, 700), (spaced, 200), (code, 120), (damaged, 80), (anywhere, 200)):
        texts += [kind(rng) for _ in range(n)]
    return texts


CORPUS = ["", *SCRIPTS, *EMOJI, *WHITESPACE, *CONTROLS, *DIGITS, *CODE, *WORDS, *SPECIALS, *DISPUTED, *PHI4_SPECIALS]
CORPUS = list(dict.fromkeys([*CORPUS, *drawn()]))
