from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, final

from candlewick.stream import FinishReason

__version__: str
__all__ = [
    "Generator",
    "Header",
    "Session",
    "Stream",
    "Tokenizer",
    "__version__",
    "available_memory",
    "cache_dir",
    "cpu",
    "fetch",
    "hub_settings",
    "multiply_rate",
    "read_bytes",
    "read_rate",
    "start_threads",
    "tiers",
]

def start_threads() -> int: ...
def cache_dir() -> Path: ...
def cpu() -> tuple[list[str], str]: ...
def tiers() -> list[str]: ...
def available_memory() -> int | None: ...
def hub_settings() -> dict[str, Any]: ...
def read_bytes() -> int: ...
def read_rate(n_threads: int, n_bytes: int, huge: bool) -> float: ...
def multiply_rate(n_threads: int) -> float | None: ...
def fetch(
    repo: str,
    *,
    filename: str | None,
    revision: str | None,
    cache_dir: str | PathLike[str] | None,
    local_files_only: bool | None,
    token: str | bool | None,
    progress: Callable[[int, int, str], object] | None,
) -> list[Path]: ...

@final
class Generator:
    def __new__(
        cls,
        path: str | PathLike[str],
        *,
        tokenizer: str | PathLike[str] | None,
        device: str,
        engine: str,
        n_ctx: int | None,
        n_threads: int,
        kv_type: str,
        mmap: bool,
        progress: Callable[[int, int, str], object] | None = None,
    ) -> Generator: ...
    def stream(
        self,
        prompt: object,
        *,
        raw: bool,
        max_tokens: int | None,
        temperature: float,
        top_p: float,
        top_k: int,
        min_p: float,
        repetition_penalty: float,
        repeat_last_n: int,
        frequency_penalty: float,
        presence_penalty: float,
        stop: str | Sequence[str] | None,
        stop_token_ids: Sequence[int] | None,
        ignore_eos: bool,
        logit_bias: Mapping[int, float] | None,
        seed: int | None,
        speculative: str | bool | int,
        typical_p: float,
        xtc_probability: float,
        xtc_threshold: float,
        dry_multiplier: float,
        dry_base: float,
        dry_allowed_length: int,
        dry_penalty_last_n: int,
        dry_sequence_breakers: str | Sequence[str],
        no_repeat_ngram_size: int,
        min_tokens: int,
        bad_words: str | Sequence[str | int | Sequence[int]] | None,
        logprobs: int | None,
        logits_processor: Callable[[list[int], bytearray], None] | None,
        constraint: tuple[str, Any] | None,
    ) -> Stream: ...
    def session(self, messages: Sequence[Mapping[str, Any]]) -> Session: ...
    def save_session(self, path: str | PathLike[str], text: str, messages: Sequence[Mapping[str, Any]]) -> None: ...
    def load_session(self, path: str | PathLike[str]) -> tuple[str, Session]: ...
    def encode_prompt(self, prompt: object, raw: bool) -> list[int]: ...
    def clear_cache(self) -> None: ...
    def context_bytes(self, n_ctx: int) -> int: ...
    def score(self, prompt: object) -> tuple[list[tuple[int, str]], list[float]]: ...
    def logits(self, ids: Sequence[int], chunk: int) -> list[float]: ...
    def apply_chat_template(self, messages: Sequence[Mapping[str, Any]]) -> str: ...
    def close(self) -> None: ...
    @property
    def tokenizer(self) -> Tokenizer: ...
    @property
    def n_ctx(self) -> int: ...
    @property
    def info(self) -> dict[str, Any]: ...
    @property
    def stats(self) -> tuple[int, int, int, int]: ...
    @property
    def sha256(self) -> str: ...
    @property
    def work(self) -> tuple[int, int, int]: ...
    @property
    def closed(self) -> bool: ...

@final
class Header:
    @staticmethod
    def read(path: str | PathLike[str]) -> Header: ...
    @staticmethod
    def ask(
        repo: str,
        *,
        filename: str | None,
        revision: str | None,
        cache_dir: str | PathLike[str] | None,
        local_files_only: bool | None,
        token: str | bool | None,
    ) -> Header: ...
    def context_bytes(self, n_ctx: int, kv_type: str) -> int: ...
    def context_room(self, available: int) -> int | None: ...
    @property
    def facts(self) -> dict[str, Any]: ...
    @property
    def others(self) -> list[tuple[str, int | None]]: ...

@final
class Session:
    def fork(self) -> Session: ...

@final
class Stream:
    def next_text(self) -> str | None: ...
    def next_token(self) -> tuple[int, str, float, list[tuple[int, str, float, bytes]]] | None: ...
    def await_text(self, deliver: Callable[[Any, BaseException | None], object]) -> None: ...
    def await_token(self, deliver: Callable[[Any, BaseException | None], object]) -> None: ...
    def await_end(self, deliver: Callable[[Any, BaseException | None], object]) -> None: ...
    def cancel(self) -> None: ...
    def end(self) -> None: ...
    def hold(self, session: Session) -> None: ...
    @property
    def text(self) -> str: ...
    @property
    def tokens(self) -> list[tuple[int, str, float, list[tuple[int, str, float, bytes]]]]: ...
    @property
    def prompt_ids(self) -> list[int]: ...
    @property
    def finish_reason(self) -> FinishReason | None: ...
    @property
    def stop_reason(self) -> str | int | None: ...
    @property
    def usage(self) -> tuple[int, int, int, int]: ...
    @property
    def timings(self) -> tuple[float | None, float | None, float]: ...
    @property
    def seed(self) -> int: ...

@final
class Tokenizer:
    """The vocabulary of a model: text to token ids and back."""

    def encode(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        """Token ids of ``text``; special tokens written in it are recognised.

        Args:
            text: Any text.
            add_special_tokens: Begin with BOS where the model wants one.
        """

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """The text of ``ids``; bytes that are no valid UTF-8 become U+FFFD.

        Raises:
            InvalidRequestError: An id is outside the vocabulary.
        """

    def _deltas(self, prompt: Sequence[int], ids: Sequence[int]) -> list[str]: ...
    def __len__(self) -> int: ...
    @property
    def vocab_size(self) -> int:
        """Tokens in the vocabulary."""

    @property
    def eos_token_ids(self) -> list[int]:
        """The ids that end a text."""

    @property
    def bos_token_id(self) -> int | None:
        """The id that begins a text, or ``None``."""
