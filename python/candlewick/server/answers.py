"""Answers while they are written: pieces of text with their tokens, of one stream or of several at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

from candlewick.stream import Token, TokenStream


class Piece(NamedTuple):
    """What an answer gains."""

    text: str
    tokens: list[Token]
    """The tokens that it consists of; their texts joined are `text`."""


async def pieces(stream: TokenStream) -> AsyncIterator[Piece]:
    """The pieces of one answer.

    A token that shows no text yet comes with the one that completes its character. Tokens that show none at the end,
    an end token or those of a stop string, are no part of the answer.
    """
    waiting: list[Token] = []
    async for token in stream:
        waiting.append(token)
        if token.text:
            yield Piece(token.text, waiting)
            waiting = []


async def together(streams: Sequence[TokenStream]) -> AsyncIterator[tuple[int, Piece | None]]:
    """The pieces of several answers as they come, each with its number; ``None`` is the end of one."""
    # One slot each: who reads slowly is written for slowly.
    queue: asyncio.Queue[tuple[int, Piece | Exception | None]] = asyncio.Queue(len(streams))

    async def read(i: int, stream: TokenStream) -> None:
        try:
            async for piece in pieces(stream):
                await queue.put((i, piece))
            await queue.put((i, None))
        except Exception as error:
            await queue.put((i, error))

    tasks = [asyncio.create_task(read(i, stream)) for i, stream in enumerate(streams)]
    running = len(tasks)
    try:
        while running:
            i, item = await queue.get()
            if isinstance(item, Exception):
                raise item
            running -= item is None
            yield i, item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
