"""``/v1/completions``: texts that go on, without a chat template."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from candlewick.server import options
from candlewick.server.answers import together
from candlewick.server.errors import ApiError
from candlewick.server.logprobs import Legacy
from candlewick.server.service import Job, usage

if TYPE_CHECKING:
    from candlewick.generator import Prompt
    from candlewick.server.reply import Reply
    from candlewick.server.service import Service
    from candlewick.stream import Token, TokenStream

DEFAULT_MAX_TOKENS = 16


async def answer(service: Service, body: dict[str, Any], reply: Reply) -> None:
    """Continues one prompt or several."""
    n = body.get("n", 1)
    if body.get("best_of", n) != n:
        raise ApiError(400, f"`best_of` is {body['best_of']}, expected n, which is {n}", param="best_of")
    limit = options.max_tokens(body, ("max_tokens",), service.generator.n_ctx)
    given = {
        **options.sampling(body),
        "max_tokens": DEFAULT_MAX_TOKENS if limit is None else limit,
        "logprobs": body.get("logprobs"),
        "raw": True,
    }
    prompts = _prompts(body["prompt"])
    jobs = [Job(prompt, {**given, "seed": seed}) for prompt in prompts for seed in options.seeds(body, n)]
    head = service.head("cmpl", "text_completion")
    counted = body.get("stream_options", {}).get("include_usage")
    async with service.answering(jobs) as streams:
        tells = "logprobs" in body
        legacies = [Legacy() for _ in streams]
        if not body.get("stream"):
            tokens: list[list[Token]] = [[] for _ in streams]
            async for i, piece in together(streams):
                tokens[i] += [] if piece is None else piece.tokens
            choices = [
                _choice(i, stream.text, legacies[i].columns(tokens[i]) if tells else None, stream)
                for i, stream in enumerate(streams)
            ]
            await reply.json({**head, "choices": choices, "usage": usage(streams, n)})
            return
        if counted:
            head["usage"] = None
        async for i, piece in together(streams):
            if piece is None:
                choice = _choice(i, "", None, streams[i])
            else:
                choice = _choice(i, piece.text, legacies[i].columns(piece.tokens) if tells else None, None)
            await reply.event({**head, "choices": [choice]})
        if counted:
            await reply.event({**head, "choices": [], "usage": usage(streams, n)})
        await reply.event("[DONE]")
        await reply.end()


def _prompts(prompt: Any) -> list[Prompt]:
    """One prompt or several, each a text or a list of token ids."""
    if isinstance(prompt, str) or isinstance(prompt[0], int):
        return [prompt]
    return list(prompt)


def _choice(i: int, text: str, logprobs: Any, ended: TokenStream | None) -> dict[str, Any]:
    choice = {"index": i, "text": text, "logprobs": logprobs, "finish_reason": ended and ended.finish_reason}
    if ended:
        choice["candlewick"] = {"seed": ended.seed, "timings": ended.timings.to_dict()}
    return choice
