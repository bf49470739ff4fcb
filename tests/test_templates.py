"""The published chat formats give the prompts that transformers makes (tests/data/make_template_golden.py), and end."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
from make_gguf import tiny_model
from phi_templates import CONVERSATIONS, SYSTEM, TEMPLATES, TOOLS, turns
from tokenizer_vocabularies import KINDS

from candlewick import Generator, InvalidRequestError

GOLDEN = json.loads((Path(__file__).parent / "data" / "golden" / "templates.json").read_text())


@pytest.fixture(scope="module", params=TEMPLATES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Generator]:
    """A model with the template and the kind of vocabulary that it was published with."""
    template = TEMPLATES[request.param]
    vocab = KINDS[template.kind].vocab()
    ids = {"bos_id": vocab.tokens.index(template.bos), "eos_id": vocab.tokens.index(template.eos)}
    vocab = replace(vocab, chat_template=template.source, **ids)
    return request.param, Generator(tiny_model(tmp_path_factory.mktemp("template") / "m.gguf", vocab=vocab, layers=1))


@pytest.mark.parametrize("label", CONVERSATIONS)
def test_prompts_are_those_of_transformers(model: tuple[str, Generator], label: str) -> None:
    name, gen = model
    golden = GOLDEN[name][label]
    if golden is None:
        with pytest.raises(InvalidRequestError, match="no place for the tools of a message with role `system`"):
            gen.apply_chat_template(CONVERSATIONS[label])
        return
    assert gen.apply_chat_template(CONVERSATIONS[label]) == golden["text"]


def test_the_golden_prompts_hold_every_template() -> None:
    assert GOLDEN.keys() == TEMPLATES.keys()
    assert all(prompts.keys() == CONVERSATIONS.keys() for prompts in GOLDEN.values())
    dropped = {name for name, prompts in GOLDEN.items() if prompts["a system turn"]["moved"]}
    assert dropped == {"Phi-3-mini, first", "Phi-3-medium", "Phi-4-reasoning"}
    tools = {name for name, prompts in GOLDEN.items() if prompts["tools"] is not None}
    assert tools == {"Phi-4-mini", "Phi-4-mini-reasoning"}


def test_the_marks_of_turns_become_special_tokens(model: tuple[str, Generator]) -> None:
    """And the prompt begins with at most one BOS, whether the template or the file writes it."""
    name, gen = model
    kind = KINDS[TEMPLATES[name].kind]
    vocab = kind.vocab()
    prompt = GOLDEN[name]["a question"]["text"]
    expected = kind.judge(vocab).encode(prompt, add_special_tokens=False).ids
    bos = vocab.tokens.index(TEMPLATES[name].bos)
    if vocab.add_bos and expected[0] != bos:
        expected = [bos, *expected]
    stream = gen.stream(CONVERSATIONS["a question"], max_tokens=1)
    assert stream.usage.prompt_tokens == len(expected) == len(set(expected[:2])) + len(expected) - 2
    marks = [token for token in vocab.tokens if token.endswith("|>") and token in prompt]
    assert marks and {vocab.tokens.index(mark) for mark in marks} <= set(expected)


def test_answers_end_at_the_marks_that_end_a_turn(model: tuple[str, Generator]) -> None:
    """Whichever of them the file calls its end token."""
    name, gen = model
    tokens = KINDS[TEMPLATES[name].kind].vocab().tokens
    ends = [token for token in ("<|end|>", "<|im_end|>", "<|endoftext|>") if token in tokens]
    assert len(ends) == 2
    for end in ends:
        stream = gen.stream("Hi", max_tokens=5, logit_bias={tokens.index(end): 1000.0})
        assert (list(stream), stream.finish_reason) == ([], "stop"), end


def test_tools_need_a_place_in_the_template(model: tuple[str, Generator]) -> None:
    _, gen = model
    with pytest.raises(InvalidRequestError, match="no place for the tools of a message with role `user`"):
        gen.apply_chat_template([turns("Hi")[0] | {"tools": TOOLS}])


@pytest.mark.thread_unsafe(reason="counts log records, and each thread hears all")
def test_a_moved_system_turn_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    gen = Generator(tiny_model(tmp_path / "m.gguf", layers=1))
    with caplog.at_level(logging.WARNING, logger="candlewick"):
        for _ in range(2):
            gen.apply_chat_template([SYSTEM, *turns("Hi")])
    assert [record.message for record in caplog.records] == [
        "the chat template has no place for a system message: it goes before the first user message"
    ]


def test_phi2_has_no_template(tmp_path: Path) -> None:
    path = tiny_model(tmp_path / "m.gguf", arch="phi2", vocab=KINDS["gpt-2"].vocab(), layers=1)
    gen = Generator(path)
    with pytest.raises(InvalidRequestError, match="raw=True"):
        gen.apply_chat_template(turns("Hi"))
    assert gen.generate("Instruct: Hi\nOutput:", raw=True, max_tokens=2).usage.completion_tokens == 2
