"""Texts that must match a schema, a regular expression or a grammar: judged by `jsonschema`, `re` and `lark`."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import json
import re
import subprocess
import sys
import threading
import time
import typing
import unicodedata
import uuid
from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from make_gguf import small_vocab, tiny_model
from typing_extensions import NotRequired, TypedDict

from candlewick import Generator, InvalidRequestError
from candlewick.partial import partial

PROMPT = "Write a haiku about rain"


def closed(required: list[str] | None = None, **properties: Any) -> dict[str, Any]:
    names = list(properties) if required is None else required
    return {"type": "object", "properties": properties, "required": names, "additionalProperties": False}


WORD = {"type": "string", "maxLength": 5}
# Every keyword that is supported; all of them end soon.
SCHEMAS: dict[str, Any] = {
    "null": {"type": "null"},
    "boolean": {"type": "boolean"},
    "integer in a range": {"type": "integer", "minimum": -12, "maximum": 1205},
    "integer above and below": {"type": "integer", "exclusiveMinimum": 7, "exclusiveMaximum": 9},
    "draft 4's exclusive bounds": {"type": "integer", "minimum": 7, "exclusiveMinimum": True, "maximum": 9},
    "number in a range": {"type": "number", "minimum": 0.5, "exclusiveMaximum": 0.75},
    "number that is a multiple": {"type": "number", "minimum": 1, "maximum": 2, "multipleOf": 0.25},
    "integer that is a multiple": {"type": "integer", "minimum": 1, "maximum": 300, "multipleOf": 7},
    "text of some length": {"type": "string", "minLength": 2, "maxLength": 6},
    "text with a pattern": {"type": "string", "pattern": "^[a-c]{2}[0-9]$"},
    "text with a pattern inside": {"type": "string", "pattern": "q", "maxLength": 4},
    "text with pattern and length": {"type": "string", "pattern": "^(ab)*$", "minLength": 3, "maxLength": 8},
    "date": {"type": "string", "format": "date"},
    "date with a pattern": {"type": "string", "format": "date", "pattern": "^20"},
    "date-time": {"type": "string", "format": "date-time", "maxLength": 32},
    "time": {"type": "string", "format": "time", "maxLength": 25},
    "uuid": {"type": "string", "format": "uuid"},
    "ipv4": {"type": "string", "format": "ipv4"},
    "enum": {"enum": ["red", "green", 3, 2.5, None, True, {"a": [1, "x"]}, ["y"]]},
    "const": {"const": {"b": 1, "a": 'two "words"\n'}},
    "several types": {"type": ["integer", "null"], "minimum": 0, "maximum": 99},
    "array": {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 4},
    "tuple": {"type": "array", "prefixItems": [WORD, {"type": "null"}], "items": False, "minItems": 2},
    "draft 7's tuple": {
        "type": "array",
        "items": [{"const": 1}, {"const": 2}],
        "additionalItems": False,
        "minItems": 1,
    },
    "object": closed(name=WORD, ok={"type": "boolean"}),
    "object with optional parts": closed(["b"], a=WORD, b=WORD, c={"type": "null"}),
    "object of any names": {"type": "object", "additionalProperties": {"type": "null"}, "maxProperties": 1},
    "one name at least": closed([], a={"type": "null"}, b={"type": "null"}) | {"minProperties": 1},
    "names with a pattern": {
        "type": "object",
        "patternProperties": {"^[ab]{1,3}$": {"type": "null"}},
        "additionalProperties": False,
        "maxProperties": 2,
    },
    "anyOf": {"anyOf": [WORD, {"type": "integer", "minimum": 1, "maximum": 5}]},
    "allOf": {"allOf": [closed(["a"], a={}, b=WORD) | {"additionalProperties": True}, closed(a=WORD, b=WORD)]},
    "oneOf": {"oneOf": [closed(kind={"const": "cat"}, n={"type": "null"}), closed(kind={"const": "dog"})]},
    "oneOf by references": {
        "oneOf": [{"$ref": "#/$defs/cat"}, {"$ref": "#/$defs/dog"}],
        "$defs": {"cat": closed(kind={"const": "cat"}), "dog": closed(kind={"const": "dog"}, a={"type": "boolean"})},
    },
    "references": closed(a={"$ref": "#/$defs/a b~1c"}, b={"$ref": "#/$defs/a%20b~1c"}) | {"$defs": {"a b/c": WORD}},
    "a definition that is called like ours": {"$ref": "#/$defs/1", "$defs": {"1": {"$ref": "#/$defs/0"}, "0": WORD}},
    "recursion": {
        "$ref": "#/$defs/tree",
        "$defs": {"tree": closed(["v"], v={"type": "boolean"}, next={"$ref": "#/$defs/tree"})},
    },
    "annotations": {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$id": "https://example.com/x",
        "$comment": "c",
        "title": "t",
        "description": "d",
        "default": "no",
        "examples": [1],
        "deprecated": True,
        "x-order": 3,
        "uniqueItems": False,
        "type": "boolean",
    },
}


def test_the_table_has_every_keyword() -> None:
    """So that a keyword that is taken up later is tested."""
    source = (Path(__file__).parents[1] / "src/sample/grammar/schema.rs").read_text(encoding="utf-8")
    body = source[source.index("match key {") : source.index("_ if ANNOTATIONS")]
    words = set(re.findall(r'"([$a-zA-Z]+)"', "\n".join(re.findall(r'^ *(?:\| )?(?:".*)', body, re.MULTILINE))))
    used: set[str] = set()

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            used.update(value)
            for item in value.values():
                walk(item)
        elif isinstance(value, list):
            for item in value:
                walk(item)

    walk(list(SCHEMAS.values()))
    keywords = {w for w in words if w in JSON_SCHEMA_KEYWORDS}
    assert len(keywords) > 25
    assert keywords <= used


# Validation and applicator keywords of drafts 4 to 2020-12.
JSON_SCHEMA_KEYWORDS = {
    *("type enum const anyOf oneOf allOf not if then else $ref $dynamicRef $recursiveRef".split()),
    *("items prefixItems additionalItems unevaluatedItems contains minContains maxContains".split()),
    *("minItems maxItems uniqueItems properties patternProperties additionalProperties propertyNames".split()),
    *("unevaluatedProperties required minProperties maxProperties dependencies dependentRequired".split()),
    *("dependentSchemas minLength maxLength pattern format contentEncoding contentMediaType contentSchema".split()),
    *("minimum maximum exclusiveMinimum exclusiveMaximum multipleOf".split()),
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_what_is_written_validates(model: Generator, name: str) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = SCHEMAS[name]
    kind = jsonschema.Draft4Validator if "draft 4" in name else jsonschema.Draft202012Validator
    kind = jsonschema.Draft7Validator if "draft 7" in name else kind
    validator = kind(schema, format_checker=kind.FORMAT_CHECKER)
    seen = set()
    for seed in range(8):
        answer = model.generate(PROMPT, json_schema=schema, temperature=1.5, seed=seed, max_tokens=400)
        assert answer.finish_reason == "stop", answer
        validator.validate(json.loads(answer.text))
        assert answer.parsed == json.loads(answer.text)
        if schema.get("format") in ("date-time", "time"):
            # Python 3.10 reads fractions of three or six digits and no Z.
            plain = re.sub(r"\.\d+", "", answer.parsed).replace("Z", "+00:00")
            (datetime.datetime if schema["format"] == "date-time" else datetime.time).fromisoformat(plain)
        # But for the ways to write a number, and names that come twice, this is all there is.
        compact = json.dumps(answer.parsed, separators=(",", ":"), ensure_ascii=False)
        assert answer.text == compact or "number" in name or "names" in name
        seen.add(answer.text)
    always_one = ("null", "integer above and below", "draft 4's exclusive bounds", "const")
    assert len(seen) > 1 or name in always_one or "any names" in name


UNSUPPORTED: dict[str, Any] = {
    "not": {"type": "null"},
    "if": {},
    "then": {},
    "else": {},
    "contains": {},
    "minContains": 1,
    "maxContains": 1,
    "uniqueItems": True,
    "propertyNames": {},
    "dependencies": {},
    "dependentRequired": {},
    "dependentSchemas": {},
    "unevaluatedItems": False,
    "unevaluatedProperties": False,
    "contentEncoding": "base64",
    "contentMediaType": "text/html",
    "contentSchema": {},
    "$dynamicRef": "#a",
    "$dynamicAnchor": "a",
    "$recursiveRef": "#",
    "$recursiveAnchor": True,
    "x-guidance": {"whitespace_flexible": True},
}


def test_every_keyword_is_enforced_or_refused() -> None:
    enforced = JSON_SCHEMA_KEYWORDS - set(UNSUPPORTED)
    used = {key for schema in SCHEMAS.values() for key in re.findall(r'"([$a-zA-Z]+)":', json.dumps(schema))}
    assert enforced <= used


@pytest.mark.parametrize("keyword", UNSUPPORTED)
@pytest.mark.parametrize("draft", [None, "http://json-schema.org/draft-04/schema#"])
def test_what_cannot_be_enforced_is_refused_by_name(demo: Generator, keyword: str, draft: str | None) -> None:
    # llguidance passes over keywords that the draft does not know.
    schema = closed(a={"type": "array", "items": {keyword: UNSUPPORTED[keyword]}}) | (
        {"$schema": draft} if draft else {}
    )
    place = re.escape(f"json_schema has `{keyword}` at #/properties/a/items/{keyword}, which cannot be enforced")
    with pytest.raises(InvalidRequestError, match=place):
        demo.stream(PROMPT, json_schema=schema)


BROKEN: list[tuple[Any, str]] = [
    ({"minlength": 3}, "json_schema has `minlength` at #/minlength, which is no keyword of JSON Schema"),
    ({"properties": {"a/b": {"typo": 1}}}, "`typo` at #/properties/a~1b/typo"),
    ({"type": "objekt"}, 'json_schema at #/type is "objekt", expected null, boolean, integer'),
    ({"type": []}, "json_schema at #/type is []"),
    ({"enum": []}, "json_schema at #/enum is an empty list"),
    ({"anyOf": []}, "json_schema at #/anyOf is an empty list"),
    ({"anyOf": [3]}, "json_schema at #/anyOf/0 is a number, expected a schema: an object, true or false"),
    ({"properties": []}, "json_schema at #/properties is an empty list, expected an object of schemas"),
    ({"required": "a"}, 'json_schema at #/required is "a", expected a list of names'),
    ({"minLength": -1}, "json_schema at #/minLength is -1, expected an integer from 0 to 100000"),
    ({"maxItems": 1e9}, "json_schema at #/maxItems is 1000000000"),
    ({"minimum": "1"}, "json_schema at #/minimum is a string, expected a number"),
    ({"maximum": 10**30}, "json_schema at #/maximum is 1e+30, expected a number from -9007199254740992"),
    ({"multipleOf": 0}, "json_schema at #/multipleOf is 0, expected a number above 0"),
    ({"format": "idn-email"}, 'json_schema at #/format is "idn-email", which cannot be enforced, expected one of date'),
    ({"nullable": True}, 'json_schema at #/nullable is of OpenAPI 3.0, expected "type": [..., "null"]'),
    ({"pattern": "(?=a)"}, "look-around, including look-ahead and look-behind, is not supported"),
    ({"pattern": "("}, "unclosed group"),
    ({"const": "a\x01"}, "json_schema at #/const has the control character '\\u{1}'"),
    ({"$ref": "#/$defs/a"}, 'json_schema at #/$ref refers to "#/$defs/a", which is not there'),
    ({"$ref": "other.json"}, 'refers to "other.json", expected a reference within the schema'),
    ({"$ref": "#"}, 'json_schema at #/$ref refers to "#" in a circle'),
    ({"anyOf": [{"$ref": "#"}]}, "json_schema describes no finite value"),
    (closed(a={"$ref": "#"}), "json_schema describes no finite value: a part of it requires itself"),
    ({"type": "object", "minProperties": 2}, "json_schema at #/minProperties is 2, which cannot be enforced"),
    ({"type": "integer", "minimum": 5, "maximum": 4}, "json_schema cannot be used: Unsatisfiable schema"),
    (closed(a=False), "required property 'a' is unsatisfiable"),
    (
        {"oneOf": [{"type": "integer"}, {"type": "integer", "minimum": 3}]},
        "the alternatives of a `oneOf` cannot be told",
    ),
    ({"allOf": [{"multipleOf": 70001}, {"multipleOf": 70003}]}, "values of `multipleOf` that are too large together"),
    ({"a": "b" * 2**20}, "json_schema has 1048584 bytes, expected at most 1048576"),
    ("{", "json_schema is not JSON: EOF while parsing an object at line 1 column 1"),
    ("[]", "json_schema at # is an empty list, expected a schema"),
    ({"a": {1, 2}}, "json_schema cannot be written as JSON"),
    ({"minimum": float("nan")}, "json_schema cannot be written as JSON"),
    (list[complex], "list[complex] is complex, which cannot be described as JSON Schema"),
    (dict[int, str], "has keys of type int, and keys in JSON are str"),
]


@pytest.mark.parametrize(("schema", "text"), BROKEN, ids=[text[:40] for _, text in BROKEN])
def test_a_broken_schema_is_an_error_at_the_call(demo: Generator, schema: Any, text: str) -> None:
    with pytest.raises(InvalidRequestError, match=re.escape(text)):
        demo.stream(PROMPT, json_schema=schema)
    assert demo.generate(PROMPT, regex="ok").text == "ok"


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "null"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


def chain(n: int) -> dict[str, Any]:
    link = {f"d{i}": closed([], x={"$ref": f"#/$defs/d{i + 1}"}) for i in range(n)}
    return {"$ref": "#/$defs/d0", "$defs": link | {f"d{n}": {"type": "null"}}}


def doubled(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "null"}
    for _ in range(levels):
        schema = {"anyOf": [schema, schema]}
    return schema


HOSTILE: list[tuple[str, Any, str]] = [
    ("json_schema", nested(60), ""),
    ("json_schema", nested(110), "is nested too deep, expected at most 100 levels"),
    ("json_schema", nested(150), "recursion limit exceeded"),
    ("json_schema", '{"items":' * 50_000, "recursion limit exceeded"),
    ("json_schema", chain(6000), "json_schema is too large: expected at most 10000 schemas"),
    ("json_schema", doubled(14), "json_schema is too large"),
    ("json_schema", {"type": "string", "pattern": "(.{0,500}x){500}"}, ""),
    (
        "json_schema",
        {"allOf": [{"pattern": f"a{i}"} for i in range(40)]},
        "asks several patterns of one text, expected",
    ),
    ("json_schema", {"allOf": [{"type": "string", "pattern": f"(a|b{i}).*[c-f]{i}"} for i in range(5)]}, "too complex"),
    (
        "json_schema",
        closed([], **{f"p{i}": {} for i in range(3000)}),
        "at #/properties has 3000 names, expected at most",
    ),
    ("json_schema", closed([], **{f"p{i}": {} for i in range(1000)}), ""),
    ("regex", "a" * 1_000_000, "regex has 1000000 bytes, expected at most 131072"),
    ("regex", "(" * 5000 + "a" + ")" * 5000, "regex has 5000 brackets in each other, expected at most 100"),
    ("regex", "((a{100}){100}){100}", ""),
    ("regex", "(a|b)*a(a|b){20}", ""),
    ("grammar", "start: " + "(" * 60_000 + '"a"' + ")" * 60_000, "grammar has 60000 brackets in each other"),
    ("grammar", "start: r0\n" + "".join(f'r{i}: "x" r{i + 1}\n' for i in range(3000)), "grammar has 3001 rules"),
    ("grammar", "start: A\nA: " + "~" * 50_000 + '"a"', "grammar"),
]


@pytest.mark.parametrize(("name", "value", "text"), HOSTILE, ids=[f"{n}-{i}" for i, (n, _, _) in enumerate(HOSTILE)])
def test_hostile_input_is_named_soon_and_harms_nothing(demo: Generator, name: str, value: Any, text: str) -> None:
    begun = time.monotonic()
    try:
        demo.stream(PROMPT, **{name: value}).cancel()
    except InvalidRequestError as error:
        assert re.search(text, str(error)), error
        assert "panic" not in str(error) and len(str(error)) < 2000
    else:
        assert text == ""
    assert time.monotonic() - begun < 20
    assert demo.generate(PROMPT, regex="ok").text == "ok"


GRAMMARS: list[tuple[dict[str, Any], str]] = [
    ({"regex": ""}, "regex is empty"),
    ({"regex": "(|)"}, "regex matches no text but the empty one"),
    ({"regex": "(a"}, r"regex cannot be used:\n    \(a\n    \^\nerror: unclosed group"),
    ({"regex": r"(a)\1"}, "backreferences are not supported"),
    ({"regex": re.compile("a", re.MULTILINE)}, "regex has the flags re.MULTILINE, expected re.IGNORECASE"),
    ({"grammar": 'start: "a'}, r"grammar cannot be used: 1\(10\): lexer error\n   1 \| start: "),
    ({"grammar": "start: b"}, 'unknown name: "b"'),
    ({"grammar": 'a: "b"'}, "no start rule found"),
    ({"grammar": "start: <|end|>"}, "it names a special token, and those are never part of a text"),
    ({"grammar": "start: <[5]>"}, "the grammar names tokens by number"),
    ({"regex": "(a$|b)c"}, "regex cannot be used"),
    ({"grammar": "start: a\na[stop=/x/]: /[a-z]*/"}, "grammar has `stop`"),
    ({"grammar": "start: a\na[temperature=0.5]: /[a-z]*/"}, "the grammar has `temperature`"),
    ({"grammar": 'start: "a"\n  %json {"if": {}}'}, "the %json of the grammar's line 2 has `if` at #/if"),
    ({"regex": "a", "json_schema": {}}, "json_schema and regex are given, and a text can follow one of them"),
    ({"regex": "a", "ignore_eos": True}, "ignore_eos goes on past the end"),
    ({"regex": "a\ud800"}, "regex holds a lone surrogate"),
]


@pytest.mark.parametrize(("arguments", "text"), GRAMMARS, ids=[str(a)[:50] for a, _ in GRAMMARS])
def test_a_broken_regex_or_grammar_is_an_error_at_the_call(demo: Generator, arguments: Any, text: str) -> None:
    with pytest.raises(InvalidRequestError, match=text):
        demo.stream(PROMPT, **arguments)
    assert demo.generate(PROMPT, regex="ok").text == "ok"


@pytest.mark.parametrize(
    "arguments", [{"regex": 5}, {"grammar": ["a"]}, {"json_schema": 5}, {"tools": "f"}, {"tools": [5]}]
)
def test_wrong_types(demo: Generator, arguments: Any) -> None:
    with pytest.raises(TypeError):
        demo.stream(PROMPT, **arguments)


def test_a_prompt_that_ends_inside_a_character(demo: Generator) -> None:
    halves = (i for i in range(demo.tokenizer.vocab_size) if demo.tokenizer._deltas([], [i]) == ["", "\ufffd"])
    begin = next(halves)
    with pytest.raises(InvalidRequestError, match="the prompt ends inside a character"):
        demo.stream([begin], regex="a")


# Atoms and what is done with them: characters of one to four bytes, classes, spaces at the start.
ATOMS = [
    "a",
    "b",
    " ",
    "é",
    "漢",
    "🙂",
    "[a-f]",
    "[^a-y\\n]",
    r"\d",
    ".",
    "(ab|c)",
    "(x y|z)",
    r"\.",
    "\\u00e9",
    "[😀-😎]",
    "[a&&~]",
    "[]x]",
    "[^]x ]",
    r"\w",
    r"\S",
]
REGEXES = st.recursive(
    st.sampled_from(ATOMS),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["{2}", "{1,3}", "?"])).map(lambda t: f"(?:{t[0]}){t[1]}"),
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda t: f"(?:{t[0]}|{t[1]})"),
    ),
    max_leaves=6,
)


@pytest.mark.filterwarnings("ignore:Possible (set|nested):FutureWarning")
@settings(deadline=None, max_examples=150)
@given(regex=REGEXES, seed=st.integers(0, 2**32))
def test_the_whole_text_matches(demo: Generator, bpe: Generator, regex: str, seed: int) -> None:
    for model in (demo, bpe):
        for prompt in (PROMPT, "x"):
            try:
                answer = model.generate(
                    prompt, regex=regex, temperature=1.5, seed=seed, max_tokens=100, raw=prompt == "x"
                )
            except InvalidRequestError as error:
                assert "no text but the empty one" in str(error)
                continue
            assert answer.finish_reason == "stop"
            # A letter or digit that came into Unicode after this Python is none to its `re`.
            if not any(unicodedata.category(c) == "Cn" for c in answer.text):
                assert re.fullmatch(regex, answer.text), (regex, answer.text)


@pytest.mark.parametrize("prompt", [PROMPT, [1], "Once"])
@pytest.mark.parametrize("regex", [" x", "  x", "x", " ?x", "é", " é", " {3}"])
def test_the_space_that_goes_at_the_start(demo: Generator, tiny: Generator, prompt: Any, regex: str) -> None:
    """SentencePiece drops one space of the first token, after a special token: the text must match without it."""
    for model in (demo, tiny):
        for seed in range(6):
            answer = model.generate(
                prompt, regex=regex, temperature=2.0, seed=seed, raw=prompt == "Once", max_tokens=20
            )
            assert re.fullmatch(regex, answer.text), answer


def test_compiled_patterns_keep_their_flags(tiny: Generator) -> None:
    pattern = re.compile("ab . c", re.IGNORECASE | re.VERBOSE)
    texts = {tiny.generate(PROMPT, regex=pattern, temperature=2.0, seed=seed).text for seed in range(20)}
    assert all(pattern.fullmatch(text) for text in texts)
    assert any(text[:2] != "ab" for text in texts)
    assert tiny.generate(PROMPT, regex=r"^\d$").text.isdigit()
    assert re.fullmatch(r"\$", tiny.generate(PROMPT, regex=r"^\$").text)


LARK = """
start: expr
expr: term (("+" | "-") term)?
term: factor (("*" | "/") factor)?
factor: NUMBER | NAME | "(" expr ")" | NAME "(" [expr ("," expr)?] ")"
NUMBER: /[0-9]{1,2}/
NAME: /[a-z]/
"""


def test_what_a_grammar_derives_its_parser_accepts(model: Generator) -> None:
    lark = pytest.importorskip("lark")
    parser = lark.Lark(LARK, parser="earley")
    for seed in range(30):
        answer = model.generate(PROMPT, grammar=LARK, temperature=1.5, seed=seed, max_tokens=150)
        assert answer.finish_reason == "stop"
        parser.parse(answer.text)


def test_json_in_a_grammar_is_compact_and_checked(tiny: Generator) -> None:
    grammar = 'start: "<" %json {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"], \
"additionalProperties": false} ">"'
    texts = {tiny.generate(PROMPT, grammar=grammar, temperature=3.0, seed=seed).text for seed in range(40)}
    assert texts == {'<{"a":true}>', '<{"a":false}>'}


def test_control_tokens_are_no_text(tiny: Generator) -> None:
    """Where anything goes, no special token comes but at the end."""
    tokenizer = tiny.tokenizer
    special = [
        i
        for i in range(tokenizer.vocab_size)
        if not tokenizer.decode([40, i, 41]).strip() or tokenizer.decode([40, i, 41]) == tokenizer.decode([40, 41])
    ]
    assert tokenizer.eos_token_ids[0] in special
    for seed in range(20):
        tokens = list(tiny.stream_tokens(PROMPT, regex="(?s:.{1,40})", temperature=3.0, seed=seed))
        assert not {token.id for token in tokens[:-1]} & set(special)


def test_the_end_comes_without_a_token_for_it(tiny: Generator) -> None:
    stream = tiny.stream_tokens(PROMPT, regex="abc", temperature=0)
    tokens = list(stream)
    assert "".join(token.text for token in tokens) == "abc"
    assert not {token.id for token in tokens} & set(tiny.tokenizer.eos_token_ids)
    assert (stream.finish_reason, stream.stop_reason) == ("stop", None)
    # Where more could follow, an end token ends it.
    eos = tiny.tokenizer.eos_token_ids[0]
    stream = tiny.stream_tokens(PROMPT, regex="ab*", logit_bias={eos: 100.0})
    tokens = list(stream)
    assert "".join(token.text for token in tokens) == "a"
    assert tokens[-1].id == eos
    assert (stream.finish_reason, stream.stop_reason) == ("stop", eos)


def test_control_tokens_that_the_request_stops_at_end_the_text(tiny: Generator) -> None:
    (user,) = tiny.tokenizer.encode("<|user|>")
    stream = tiny.stream(PROMPT, regex="ab*", stop_token_ids=[user], logit_bias={user: 100.0})
    assert "".join(stream) == "a"
    assert stream.stop_reason == user


def test_stop_strings_and_limits_still_end_a_text(demo: Generator) -> None:
    answer = demo.generate(PROMPT, regex="ab{20}c", stop="bbb")
    assert (answer.text, answer.finish_reason, answer.stop_reason) == ("a", "stop", "bbb")
    answer = demo.generate(PROMPT, json_schema={"type": "string", "minLength": 50}, max_tokens=5)
    assert answer.finish_reason == "length"
    assert answer.parsed is None
    cut = demo.generate(PROMPT, json_schema={"const": ["one", "two"]}, stop=",")
    assert (cut.text, cut.parsed) == ('["one"', None)


@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.0])
def test_speculation_changes_nothing(demo: Generator, temperature: float) -> None:
    schema = {"type": "array", "items": closed(name=WORD, kind={"enum": ["cat", "dog"]}), "minItems": 6, "maxItems": 6}
    options = {"json_schema": schema, "temperature": temperature, "seed": 5, "max_tokens": 300}
    plain = demo.generate(PROMPT, speculative=False, **options)
    guessed = [demo.generate(PROMPT, speculative=n, **options) for n in ("auto", 2, 8)]
    assert {answer.text for answer in guessed} == {plain.text}
    assert guessed[-1].usage.accepted_tokens > 10


def test_streams_do_not_share_their_state(demo: Generator) -> None:
    """The same grammar, compiled once, and others: one after the other, interleaved, and in threads."""
    jobs = [{"json_schema": closed(a=WORD, b=WORD), "seed": i % 3} for i in range(6)]
    jobs += [{"regex": "[a-z]{5,9}", "seed": i} for i in range(6)]
    alone = [demo.generate(PROMPT, **job).text for job in jobs]
    streams = [demo.stream(PROMPT, **job) for job in jobs]
    running = list(streams)
    while running:
        running = [stream for stream in running if next(stream, None) is not None]
    assert [stream.text for stream in streams] == alone
    texts: list[str] = [""] * len(jobs)

    def work(i: int) -> None:
        texts[i] = demo.generate(PROMPT, **jobs[i]).text

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert texts == alone


@pytest.mark.parametrize(
    "options",
    [
        {"min_p": 0.3},
        {"top_k": 1},
        {"top_p": 0.01},
        {"repetition_penalty": 3.0},
        {"frequency_penalty": 2.0, "presence_penalty": 2.0},
        {"logit_bias": {i: 5.0 for i in range(60, 90)}},
    ],
)
def test_filters_and_penalties_come_after_the_grammar(demo: Generator, options: Any) -> None:
    for seed in range(5):
        text = demo.generate(PROMPT, regex="[0-9]{3}( [0-9]{3}){2}", seed=seed, **options).text
        assert re.fullmatch("[0-9]{3}( [0-9]{3}){2}", text)


def test_a_bias_that_forbids_all_that_the_grammar_allows(tiny: Generator) -> None:
    ids = {i: float("-inf") for i in range(tiny.tokenizer.vocab_size) if tiny.tokenizer.decode([40, i]).endswith("a")}
    with pytest.raises(InvalidRequestError, match="logit_bias forbids every token"):
        tiny.generate(PROMPT, regex="a", logit_bias=ids)


class Colour(enum.Enum):
    RED = "red"
    BLUE = 2


class Point(TypedDict):
    x: int
    y: NotRequired[Annotated[int, "the other one"]]


@dataclasses.dataclass
class Node:
    value: bool
    children: list[Node] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Everything:
    colour: Colour
    point: Point
    kind: Literal["a", 1, None]
    maybe: Optional[bool]  # noqa: UP045
    either: Literal["x"] | tuple[bool, bool]
    day: datetime.date
    at: datetime.datetime
    id: uuid.UUID
    names: dict[str, bool] = dataclasses.field(default_factory=dict)
    flags: set[bool] = dataclasses.field(default_factory=set)


def test_types_come_back_as_objects(demo: Generator) -> None:
    for seed in range(10):
        answer = demo.generate(PROMPT, json_schema=Everything, temperature=1.5, seed=seed, max_tokens=900)
        thing = answer.parsed
        assert isinstance(thing, Everything)
        assert isinstance(thing.colour, Colour) and isinstance(thing.day, datetime.date)
        assert isinstance(thing.at, datetime.datetime) and isinstance(thing.id, uuid.UUID)
        assert isinstance(thing.point["x"], int) and isinstance(thing.flags, set)
        assert thing.either == "x" or isinstance(thing.either, tuple)
        assert set(json.loads(answer.text)) <= {field.name for field in dataclasses.fields(Everything)}


def test_recursive_dataclasses(demo: Generator) -> None:
    nodes = [demo.generate(PROMPT, json_schema=Node, seed=seed, max_tokens=300).parsed for seed in range(10)]
    for node in nodes:
        assert isinstance(node, Node)
        assert all(isinstance(child, Node) for child in node.children)


def test_generic_types(demo: Generator) -> None:
    answers = [demo.generate(PROMPT, json_schema=list[Literal["a"]], max_tokens=60, seed=seed) for seed in range(10)]
    assert all(isinstance(answer.parsed, list) for answer in answers)
    assert demo.generate(PROMPT, json_schema=bool).parsed in (True, False)
    assert demo.generate(PROMPT, json_schema=typing.Union[bool, None]).parsed in (True, False, None)  # noqa: UP007
    assert isinstance(demo.generate(PROMPT, json_schema=tuple[bool, None], max_tokens=50).parsed, tuple)


def test_pydantic_models_come_back_parsed(demo: Generator) -> None:
    pydantic = pytest.importorskip("pydantic")

    class Cat(pydantic.BaseModel):
        kind: Literal["cat"]
        lives: int = pydantic.Field(ge=1, le=9)

    class Dog(pydantic.BaseModel):
        kind: Literal["dog"]
        born: datetime.date

    class Owner(pydantic.BaseModel):
        pet: Annotated[Cat | Dog, pydantic.Field(discriminator="kind")]
        tags: list[Literal["old", "young"]] = pydantic.Field(max_length=2)

    kinds = set()
    for seed in range(12):
        answer = demo.generate(PROMPT, json_schema=Owner, temperature=1.5, seed=seed, max_tokens=400)
        assert isinstance(answer.parsed, Owner)
        # A model has fields and no others.
        assert set(json.loads(answer.text)) == {"pet", "tags"}
        kinds.add(answer.parsed.pet.kind)
    assert kinds == {"cat", "dog"}
    adapter = pydantic.TypeAdapter(list[Cat])
    assert isinstance(demo.generate(PROMPT, json_schema=adapter, seed=1, max_tokens=300).parsed, list)


def test_a_dict_without_a_schema_for_its_values_is_any_json(tiny: Generator) -> None:
    answer = tiny.generate(PROMPT, json_schema={"type": "object", "maxProperties": 1}, seed=3, max_tokens=500)
    assert isinstance(answer.parsed, dict)


DOCUMENT = {
    "name": 'Ada "the\\ first"\n',
    "né": 1815,
    "x": [1.5e3, True, None, {"deep": ["🙂", ""]}],
    "last": "end",
    "z": -1,
}


@pytest.mark.parametrize("options", [{}, {"indent": 2}, {"ensure_ascii": False}])
def test_what_is_partial_grows_into_the_whole(options: Any) -> None:
    text = json.dumps(DOCUMENT, **options)
    last = None
    for end in range(len(text) + 1):
        now = partial(text[:end])
        assert grows(last, now), (text[:end], last, now)
        last = now
    assert last == DOCUMENT


def grows(before: Any, after: Any) -> bool:
    if before is None:
        return True
    if isinstance(before, dict):
        return isinstance(after, dict) and all(key in after and grows(before[key], after[key]) for key in before)
    if isinstance(before, list):
        return isinstance(after, list) and len(after) >= len(before) and all(map(grows, before, after))
    return after.startswith(before) if isinstance(before, str) else before == after


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("  ", None),
        ("12", None),
        ("tru", None),
        ("nope", None),
        ("}", None),
        ('"ab', "ab"),
        ('"ab\\', "ab"),
        ('"ab\\u00', "ab"),
        ('"ab\\ud83d', "ab"),
        ('"ab\\ud83d\\ude0', "ab"),
        ('"ab\\ud83d\\ude00', "ab😀"),
        ('"a\\\\', "a\\"),
        ('"a\\\\\\', "a\\"),
        ('{"a": 1', {}),
        ('{"a": 1,', {"a": 1}),
        ('{"a": 1, "b', {"a": 1}),
        ('{"a": 1, "b":', {"a": 1}),
        ('{"a": [1, 2', {"a": [1]}),
        ('{"a": [], "b": {}', {"a": [], "b": {}}),
        ('{"a": "x"} and more', {"a": "x"}),
        ("[1 2", [1]),
        ('{"a" 1', {}),
        ("[1]]", [1]),
    ],
)
def test_what_is_partial(text: str, value: Any) -> None:
    assert partial(text) == value


def test_a_stream_shows_its_value_as_it_is_written(demo: Generator) -> None:
    schema = closed(
        a=WORD,
        b={"type": "array", "items": {"type": "integer", "maximum": 99, "minimum": 0}, "minItems": 2, "maxItems": 2},
        c=WORD,
    )
    stream = demo.stream(PROMPT, json_schema=schema, seed=4)
    last = stream.partial
    assert last is None
    for _ in stream:
        assert grows(last, stream.partial)
        last = stream.partial
    assert stream.partial == json.loads(stream.text)
    number = demo.stream(PROMPT, json_schema={"type": "integer", "minimum": 10, "maximum": 99})
    assert "".join(number) == str(number.partial)


def test_small_vocabularies_that_cannot_say_it(tmp_path: Path) -> None:
    """A text that no tokens make up is an error at the call, and not a stream that never ends."""
    vocab = small_vocab(320)
    keep = [i for i, token in enumerate(vocab.tokens) if not token.startswith("<0x") and "{" not in token]
    for field in ("tokens", "scores", "types"):
        values = getattr(vocab, field)
        setattr(vocab, field, [values[i] for i in keep])
    for field in ("bos_id", "eos_id", "unk_id", "pad_id"):
        old = getattr(vocab, field)
        setattr(vocab, field, keep.index(old) if old in keep else None)
    model = Generator(tiny_model(tmp_path / "m.gguf", vocab=vocab))
    with pytest.raises(InvalidRequestError, match="no token of this model's vocabulary can follow, at the very start"):
        model.stream("x", json_schema={"type": "object"}, raw=True)


def candlewick(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "candlewick", "run", "--model", "demo", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_the_command_line_prints_json(tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(closed(ok={"type": "boolean"})), encoding="utf-8")
    done = candlewick("--json-schema", str(path), PROMPT)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["ok"] in (True, False)
    path.write_text('{"if": true}', encoding="utf-8")
    done = candlewick("--json-schema", str(path), PROMPT)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("candlewick: json_schema has `if` at #/if, which cannot be enforced")
    done = candlewick("--json-schema", str(tmp_path / "none.json"), PROMPT)
    assert done.returncode == 1 and "none.json" in done.stderr
