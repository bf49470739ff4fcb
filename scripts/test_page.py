"""The chat page in a real Chromium: `make test-page` runs this with pytest, and it writes the pictures of docs/.

The browser is the system's: `chromium`, or the program that the environment variable CHROMIUM names.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from serving import Serving, eventually, serving

from candlewick import Generator

# Other programs may have the machine.
expect.set_options(timeout=30_000)

DOCS = Path(__file__).parent.parent / "docs"
WIDE = {"width": 1120, "height": 760}
PHONE = {"width": 390, "height": 844}


class Pace:
    """How long the model takes for a token: the demo model is too quick to be watched."""

    token_s = 0.0

    def __call__(self, ids: list[int], logits: Any) -> None:
        time.sleep(self.token_s)


@pytest.fixture(scope="module")
def pace() -> Pace:
    return Pace()


@pytest.fixture(scope="module")
def generator(pace: Pace) -> Iterator[Generator]:
    with Generator("demo") as made:
        stream_tokens = made.stream_tokens
        made.stream_tokens = lambda *a, **o: stream_tokens(*a, **o, logits_processor=pace)  # type: ignore[method-assign]
        yield made


@pytest.fixture(scope="module")
def server(generator: Generator) -> Iterator[Serving]:
    with serving(generator) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    name = os.environ.get("CHROMIUM", "chromium")
    program = shutil.which(name)
    assert program, f"no {name} here: install it, or name another with CHROMIUM"
    # A container's root has no namespaces for the sandbox.
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield launched
        launched.close()


def opened(context: BrowserContext, url: str, said: list[str]) -> Page:
    page = context.new_page()
    page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: said.append(request.url) if not request.url.startswith(url) else None)
    page.goto(f"{url}/")
    expect(page.locator("#beginnings button").first).to_be_visible()
    return page


@pytest.fixture
def page(browser: Browser, server: Serving, pace: Pace, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The page as it is opened; at the end nothing may have been said on the console or asked of another place."""
    pace.token_s = 0
    said: list[str] = []
    options = {"viewport": WIDE, **getattr(request, "param", {})}
    context = browser.new_context(**options)
    yield opened(context, server.url, said)
    context.close()
    eventually(server.is_idle)
    assert said == []


dark = pytest.mark.parametrize("page", [{"color_scheme": "dark"}], indirect=True)
phone = pytest.mark.parametrize("page", [{"viewport": PHONE, "is_mobile": True, "has_touch": True}], indirect=True)


def ask(page: Page, text: str) -> None:
    page.get_by_label("Message", exact=True).fill(text)
    page.keyboard.press("Enter")


def complete(page: Page, n: int) -> None:
    """Waits until the n-th answer is there."""
    expect(page.locator(".turn.assistant .facts")).to_have_count(n)


def words(page: Page) -> list[str]:
    return page.locator(".turn .words").all_inner_texts()


def sound(page: Page) -> None:
    """Without anything that axe-core finds a barrier."""
    found = Axe().run(page, options={"resultTypes": ["violations"]})
    assert found.violations_count == 0, found.generate_report()


def seed(page: Page, value: int) -> None:
    page.get_by_role("button", name="Model and settings").click()
    page.get_by_label("Seed").fill(str(value))
    page.keyboard.press("Escape")


def test_an_answer_grows(page: Page, pace: Pace) -> None:
    pace.token_s = 0.05
    ask(page, "Write a haiku about rain")
    answer = page.locator(".turn.assistant .words")
    lengths = set()
    while not page.locator(".turn.assistant .facts").count():
        lengths.add(len(answer.inner_text()))
    assert len(lengths) > 5
    assert words(page)[0] == "Write a haiku about rain" and len(words(page)[1].splitlines()) == 3
    assert " tokens, " in page.locator(".facts").inner_text()
    expect(page.get_by_role("status")).to_have_text("The answer is complete.")


@pytest.mark.parametrize("how", ["button", "Escape"])
def test_stop(page: Page, pace: Pace, server: Serving, how: str) -> None:
    pace.token_s = 0.2
    ask(page, "Write a haiku about rain")
    expect(page.locator(".turn.assistant .words")).not_to_be_empty()
    if how == "button":
        page.get_by_role("button", name="Stop").click()
    else:
        page.keyboard.press("Escape")
    expect(page.locator(".facts")).to_have_text("stopped")
    eventually(server.is_idle)
    before = words(page)
    pace.token_s = 0
    ask(page, "another one")
    expect(page.locator(".facts")).to_have_count(2)
    assert words(page)[:2] == before


def test_edit_and_branch(page: Page) -> None:
    ask(page, "Write a haiku about rain")
    complete(page, 1)
    ask(page, "another one")
    complete(page, 2)
    old = words(page)
    page.get_by_role("button", name="Edit and ask again").first.click()
    field = page.get_by_label("Your message")
    expect(field).to_have_value("Write a haiku about rain")
    expect(field).to_be_focused()
    field.fill("Write a haiku about fog")
    page.keyboard.press("Enter")
    complete(page, 1)
    assert len(words(page)) == 2 and words(page)[0] == "Write a haiku about fog"
    new = words(page)
    expect(page.locator(".which")).to_have_text("2 / 2")
    page.get_by_role("button", name="The version before").click()
    assert words(page) == old
    page.get_by_role("button", name="The version after").click()
    assert words(page) == new
    page.get_by_role("button", name="Answer again").click()
    expect(page.locator(".which")).to_have_count(2)
    complete(page, 1)
    page.get_by_role("button", name="Edit and ask again").click()
    page.keyboard.press("Escape")
    assert words(page)[0] == "Write a haiku about fog"


def test_a_reload_keeps_the_chat(page: Page, pace: Pace) -> None:
    seed(page, 5)
    ask(page, "Write a haiku about tea")
    complete(page, 1)
    page.get_by_role("button", name="Probabilities").click()
    before = words(page)
    page.reload()
    assert words(page) == before
    assert page.locator(".token").count() > 10
    expect(page.get_by_label("Seed")).to_have_value("5")
    # In the middle of an answer
    pace.token_s = 0.2
    ask(page, "Write a haiku about snow")
    expect(page.locator(".turn.assistant").nth(1).locator(".token").nth(3)).to_be_visible()
    page.reload()
    assert len(words(page)) == 4 and words(page)[3]
    expect(page.locator(".running")).to_have_count(0)
    page.get_by_role("button", name="New chat").click()
    expect(page.locator(".turn")).to_have_count(0)
    page.reload()
    expect(page.locator(".turn")).to_have_count(0)


def test_settings_reach_the_model(page: Page, generator: Generator) -> None:
    page.get_by_role("button", name="Model and settings").click()
    page.get_by_label("System message").fill("You are a poet.")
    page.get_by_label("Temperature").fill("0")
    page.get_by_label("Longest answer").fill("9")
    expect(page.locator("#card")).to_contain_text("phi3, Q8_0")
    expect(page.locator("#card")).to_contain_text("MB of weights")
    page.get_by_role("button", name="Close").click()
    ask(page, "Write a haiku about tea")
    complete(page, 1)
    messages = [
        {"role": "system", "content": "You are a poet."},
        {"role": "user", "content": "Write a haiku about tea"},
    ]
    assert words(page)[1] == generator.generate(messages, temperature=0, max_tokens=9).text.strip()
    expect(page.locator(".facts")).to_contain_text("cut at the limit")
    page.get_by_role("button", name="Model and settings").click()
    expect(page.locator("#card")).to_contain_text("tokens a second")
    page.get_by_role("button", name="Back to the defaults").click()
    expect(page.get_by_label("Temperature")).to_have_value("")


def test_what_a_model_writes_is_not_read_as_html(page: Page, generator: Generator) -> None:
    text = "# Title\n<img src=x onerror=alert(1)> **bold** *it* `a<b`\n\n- one\n- two\n\n```\n<b>\n```\n> said"
    turns = {
        1: {"id": 1, "parent": 0, "role": "user", "text": "<i>x</i>", "tokens": []},
        2: {"id": 2, "parent": 1, "role": "assistant", "text": text, "tokens": []},
    }
    kept = json.dumps({"turns": turns, "chosen": {0: 1, 1: 2}, "last": 2})
    page.add_init_script(f"localStorage.setItem('candlewick.chat', {json.dumps(kept)})")
    page.reload()
    user, answer = page.locator(".words").all()
    assert user.inner_text() == "<i>x</i>"
    assert answer.locator("img").count() == 0
    assert "<img src=x onerror=alert(1)>" in answer.inner_text()
    assert [answer.locator(name).inner_text() for name in ("h2", "strong", "em", "p code", "pre", "blockquote")] == [
        "Title",
        "bold",
        "it",
        "a<b",
        "<b>",
        "said",
    ]
    assert answer.locator("li").all_inner_texts() == ["one", "two"]
    sound(page)


def test_tokens_by_keyboard(page: Page, generator: Generator) -> None:
    seed(page, 3)
    page.get_by_role("button", name="Probabilities").click()
    ask(page, "Write a haiku about rain")
    complete(page, 1)
    expected = generator.generate("Write a haiku about rain", seed=3, logprobs=5)
    assert page.locator(".tokens").inner_text() == expected.text
    first = page.locator(".token").first
    first.focus()
    tip = page.get_by_role("tooltip")
    others = [other for other in expected.tokens[0].top_logprobs if other.id != expected.tokens[0].id]
    expect(tip.locator("div")).to_have_count(1 + len(others))
    expect(first).to_have_attribute("aria-describedby", "tip")
    page.keyboard.press("ArrowRight")
    expect(page.locator(".token").nth(1)).to_be_focused()
    [chosen] = tip.locator(".chosen .piece").all_inner_texts()
    assert chosen.strip() == expected.tokens[1].text.strip()
    # Line ends, which have no width, too
    for _ in range(page.locator(".token").count() - 2):
        page.keyboard.press("ArrowRight")
        expect(tip).to_be_visible()
    expect(page.locator(".token").last).to_be_focused()
    page.keyboard.press("Escape")
    expect(tip).to_be_hidden()


def test_by_keyboard_alone(page: Page) -> None:
    expect(page.get_by_label("Message", exact=True)).to_be_focused()
    page.keyboard.type("Write a haiku")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("about tea")
    page.keyboard.press("Enter")
    complete(page, 1)
    assert words(page)[0] == "Write a haiku\nabout tea"
    page.keyboard.press("Shift+Tab")
    expect(page.get_by_role("button", name="Answer again")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator(".which")).to_have_text("2 / 2")


def test_errors_are_shown(browser: Browser, server: Serving) -> None:
    # A browser writes answers of 4xx on the console by itself.
    context = browser.new_context(viewport=WIDE)
    page = opened(context, server.url, [])
    refusal = {"error": {"message": "32 answers are being written: try again later"}}
    page.route("**/v1/chat/completions", lambda route: route.fulfill(status=429, json=refusal))
    ask(page, "Write a haiku about tea")
    expect(page.locator(".error")).to_have_text(refusal["error"]["message"])
    expect(page.get_by_role("status")).to_have_text(refusal["error"]["message"])
    sound(page)
    page.unroute("**/v1/chat/completions")
    page.get_by_role("button", name="Answer again").click()
    complete(page, 1)
    context.set_offline(True)
    ask(page, "another one")
    expect(page.locator(".error")).to_have_text("The server cannot be reached. It may have ended.")
    context.close()


def test_a_key(browser: Browser, generator: Generator, pace: Pace) -> None:
    pace.token_s = 0
    with serving(generator, api_keys=["sk-1"]) as server:
        context = browser.new_context(viewport=WIDE)
        page = context.new_page()
        page.goto(f"{server.url}/")
        expect(page.get_by_role("dialog")).to_be_visible()
        page.get_by_label("API key").fill("sk-1")
        page.keyboard.press("Enter")
        expect(page.locator("#model")).to_have_text("demo")
        ask(page, "Write a haiku about tea")
        complete(page, 1)
        page.reload()
        ask(page, "another one")
        complete(page, 2)
        assert "sk-1" not in page.evaluate("JSON.stringify(localStorage)")
        context.close()


def picture(page: Page, name: str) -> None:
    page.wait_for_timeout(300)
    page.screenshot(path=str(DOCS / name))


def talk(page: Page) -> None:
    seed(page, 2)
    ask(page, "Write a haiku about the sea")
    complete(page, 1)
    ask(page, "Write a haiku about an old dog")
    complete(page, 2)
    page.get_by_role("button", name="Answer again").last.click()
    expect(page.locator(".which")).to_have_count(1)
    complete(page, 2)


def test_light(page: Page) -> None:
    sound(page)
    talk(page)
    sound(page)
    page.get_by_role("button", name="Probabilities").click()
    page.locator(".token").nth(3).focus()
    sound(page)
    picture(page, "page-light.png")
    page.get_by_role("button", name="Model and settings").click()
    sound(page)


@dark
def test_dark(page: Page) -> None:
    sound(page)
    talk(page)
    page.get_by_role("button", name="Probabilities").click()
    page.locator(".token").nth(3).focus()
    sound(page)
    page.get_by_role("button", name="Model and settings").click()
    sound(page)
    picture(page, "page-dark.png")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Light or dark").click()
    assert page.evaluate("document.documentElement.dataset.theme") == "light"
    page.reload()
    assert page.evaluate("document.documentElement.dataset.theme") == "light"
    sound(page)


@phone
def test_phone(page: Page) -> None:
    sound(page)
    talk(page)
    page.get_by_role("button", name="Probabilities").click()
    page.locator(".token").nth(2).tap()
    expect(page.get_by_role("tooltip")).to_be_visible()
    sound(page)
    picture(page, "page-phone.png")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    sizes = [button.bounding_box() for button in page.get_by_role("button").all()]
    assert sizes and all(size and min(size["width"], size["height"]) >= 32 for size in sizes)
    page.get_by_role("button", name="Model and settings").click()
    sound(page)
