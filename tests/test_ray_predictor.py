"""The predictor for Ray's data sets, called as an actor calls it. With Ray itself: scripts/test_ray.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from candlewick import ContextLengthError, Generator, InvalidRequestError
from candlewick.ray import Predictor

TOPICS = ["rain", "fog", "tea", "snow", "bees"]
PROMPTS = [f"Write a haiku about {topic}" for topic in TOPICS]


def batch(prompts: list[Any], form: str = "numpy", **more: list[Any]) -> Any:
    columns = {"prompt": prompts, **more}
    if form == "pandas":
        return pytest.importorskip("pandas").DataFrame(columns)
    if form == "pyarrow":
        return pytest.importorskip("pyarrow").table(columns)
    arrays = {name: np.empty(len(values), object) for name, values in columns.items()}
    for name, values in columns.items():
        arrays[name][:] = values
    return arrays


def columns(answer: Any) -> dict[str, list[Any]]:
    return answer.to_pydict() if hasattr(answer, "to_pydict") else {name: list(answer[name]) for name in answer}


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor("demo", max_tokens=30)


@pytest.mark.parametrize("form", ["numpy", "pandas", "pyarrow"])
def test_a_text_for_each_row_in_the_form_that_the_batch_has(form: str, demo: Generator, predictor: Predictor) -> None:
    given = batch(PROMPTS, form, id=[7, 5, 3, 2, 1])
    answer = predictor(given)
    assert type(answer) is type(given)
    found = columns(answer)
    assert list(found) == [
        "prompt",
        "id",
        "text",
        "finish_reason",
        "prompt_tokens",
        "completion_tokens",
        "seed",
        "error",
    ]
    assert (found["prompt"], found["id"]) == (PROMPTS, [7, 5, 3, 2, 1])
    expected = [
        demo.generate(prompt, max_tokens=30, seed=int(seed))
        for prompt, seed in zip(PROMPTS, found["seed"], strict=True)
    ]
    assert found["text"] == [done.text for done in expected] and len(set(found["text"])) == 5
    assert found["finish_reason"] == [done.finish_reason for done in expected]
    assert found["prompt_tokens"] == [done.usage.prompt_tokens for done in expected]
    assert found["completion_tokens"] == [done.usage.completion_tokens for done in expected]
    assert found["error"] == [""] * 5
    # What was given is Ray's, which other tasks read too.
    assert list(columns(given)) == ["prompt", "id"]


def test_the_text_of_a_row_does_not_depend_on_the_others(predictor: Predictor) -> None:
    together = columns(predictor(batch(PROMPTS * 4)))["text"]
    alone = [columns(predictor(batch([prompt])))["text"][0] for prompt in reversed(PROMPTS)]
    assert together == alone[::-1] * 4


def test_the_seed_chooses_the_texts(predictor: Predictor) -> None:
    found = columns(predictor(batch(PROMPTS)))
    texts = found["text"]
    # What was written with one version is found again with the next.
    assert found["seed"][0] == 6308054003934711804
    assert columns(Predictor("demo", max_tokens=30, seed=0)(batch(PROMPTS)))["text"] == texts
    others = columns(Predictor("demo", max_tokens=30, seed=1)(batch(PROMPTS)))["text"]
    assert all(text != other for text, other in zip(texts, others, strict=True))


def test_seeds_of_the_rows_own(demo: Generator) -> None:
    predictor = Predictor("demo", seed_column="n", columns={"text": "answer"})
    answer = columns(predictor(batch(["Write a haiku about rain"] * 3, n=[1, 2, 1])))
    assert list(answer) == ["prompt", "n", "answer"]
    texts = [demo.generate("Write a haiku about rain", seed=seed).text for seed in (1, 2, 1)]
    assert answer["answer"] == texts and texts[0] != texts[1]
    again = Predictor("demo", seed_column="seed", max_tokens=2)(batch(PROMPTS[:2], seed=[1, 2]))
    assert columns(again)["seed"] == [1, 2]


def test_results_have_the_same_types_whatever_happens() -> None:
    predictor = Predictor("demo", max_tokens=2)
    fine, wrong = predictor(batch(PROMPTS)), predictor(batch(["", None]))
    types = {name: array.dtype for name, array in fine.items()}
    assert {name: array.dtype for name, array in wrong.items()} == types
    assert [types[name].kind for name in ("text", "prompt_tokens", "seed", "error")] == ["O", "i", "i", "O"]


@pytest.mark.parametrize("form", ["numpy", "pandas", "pyarrow"])
def test_messages_and_ids(form: str, demo: Generator, predictor: Predictor) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    turns = [
        [{"role": "system", "content": "You are a poet."}, {"role": "user", "content": PROMPTS[0]}],
        [
            {"role": "user", "content": "Is it cold in Oulu?"},
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "content": "rain", "tool_call_id": "1"},
        ],
    ]
    # As Arrow has them: all with the same keys.
    keys = ("role", "content", "tool_calls", "tool_call_id")
    filled = [[{key: message.get(key) for key in keys} for message in messages] for messages in turns]
    if form == "numpy":
        # As Ray has them: lists in a column are arrays.
        given = {"prompt": np.array([np.array(messages, object) for messages in filled], object)}
    else:
        given = batch(filled, form)
    answer = columns(predictor(given))
    seeds = list(map(int, answer["seed"]))
    expected = [demo.generate(messages, max_tokens=30, seed=seed) for messages, seed in zip(turns, seeds, strict=True)]
    assert answer["text"] == [done.text for done in expected]
    # What keys the messages of others have makes no difference.
    assert columns(predictor(batch(turns[:1])))["seed"] == seeds[:1]

    ids = [demo.tokenizer.encode("winter moon"), demo.tokenizer.encode("a cup of green tea")]
    given = {"prompt": np.array([np.array(row) for row in ids], object)} if form == "numpy" else batch(ids, form)
    answer = columns(predictor(given))
    assert answer["text"] == [
        demo.generate(row, max_tokens=30, seed=int(seed)).text for row, seed in zip(ids, answer["seed"], strict=True)
    ]


@pytest.mark.parametrize("form", ["numpy", "pandas", "pyarrow"])
def test_an_error_is_its_rows_own(form: str, predictor: Predictor) -> None:
    prompts = [PROMPTS[0], "", PROMPTS[1], "rain " * 3000, None, PROMPTS[2]]
    answer = columns(predictor(batch(prompts, form)))
    fine = columns(predictor(batch(PROMPTS)))
    assert [answer["text"][i] for i in (0, 2, 5)] == fine["text"][:3]
    assert [bool(error) for error in answer["error"]] == [False, True, False, True, True, False]
    assert answer["error"][1].startswith("InvalidRequestError: the prompt is an empty string")
    assert answer["error"][3].startswith("ContextLengthError: ")
    assert answer["error"][4].startswith("TypeError: prompt must be str")
    assert [answer[name][1] for name in ("text", "finish_reason", "completion_tokens")] == ["", "error", 0]


def test_without_a_column_for_it_an_error_is_raised() -> None:
    predictor = Predictor("demo", columns={"text": "text"}, max_tokens=2)
    with pytest.raises(ContextLengthError):
        predictor(batch([PROMPTS[0], "rain " * 3000]))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"columns": {"words": "text"}}, "no result 'words', expected some of text, finish_reason"),
        ({"temperature": -1}, "temperature is -1"),
        ({"seed": -1}, "seed"),
        ({"generator": {"n_threads": 0}}, "n_threads is 0"),
    ],
)
def test_what_is_wrong_for_all_rows_is_said_at_once(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidRequestError, match=said):
        Predictor("demo", **arguments)


def test_columns_that_are_missing_or_taken(predictor: Predictor) -> None:
    with pytest.raises(InvalidRequestError, match=r"no column 'prompt', expected one of \['question'\]"):
        predictor({"question": np.array(PROMPTS)})
    with pytest.raises(InvalidRequestError, match=r"column 'text' already"):
        predictor(batch(PROMPTS, text=TOPICS))


def test_an_empty_batch(predictor: Predictor) -> None:
    assert [len(values) for values in columns(predictor(batch([]))).values()] == [0] * 7
