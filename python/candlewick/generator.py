"""`Generator`: a model that streams text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypedDict, Union, overload

from candlewick import _native, models, structured, threads
from candlewick.chat import OTHER_NAMES, Chat
from candlewick.estimate import Estimate, estimate
from candlewick.processors import Processors
from candlewick.progress import reporting
from candlewick.score import Score
from candlewick.stream import Completion, TextStream, TokenStream
from candlewick.trace import Origin

if TYPE_CHECKING:
    import os
    import re
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from types import TracebackType

    from typing_extensions import Self, Unpack

    from candlewick.chat import Overflow
    from candlewick.processors import LogitsProcessor
    from candlewick.progress import Report
    from candlewick.structured import Reader

Prompt = Union[str, "Sequence[Mapping[str, Any]]", "Sequence[int]"]
"""A user's text, a list of messages (``{"role": ..., "content": ...}``), or a list of token ids."""


_UNSAID = {"max_tokens": None, "repetition_penalty": 1.0}
"""What an argument with two names is where neither is given."""


class Options(TypedDict, total=False):
    """The keyword arguments of `Generator.stream`, which `generate` and `stream_tokens` take too."""

    max_tokens: int | None
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    repetition_penalty: float | None
    repeat_last_n: int
    frequency_penalty: float
    presence_penalty: float
    stop: str | Sequence[str] | None
    stop_token_ids: Sequence[int] | None
    ignore_eos: bool
    logit_bias: Mapping[int, float] | None
    seed: int | None
    speculative: Literal["auto"] | bool | int
    raw: bool
    typical_p: float
    xtc_probability: float
    xtc_threshold: float
    dry_multiplier: float
    dry_base: float
    dry_allowed_length: int
    dry_penalty_last_n: int
    dry_sequence_breakers: str | Sequence[str]
    no_repeat_ngram_size: int
    min_tokens: int
    bad_words: str | Sequence[str | int | Sequence[int]] | None
    logprobs: int | None
    logits_processor: LogitsProcessor | Sequence[LogitsProcessor] | None
    max_new_tokens: int | None
    repeat_penalty: float | None
    json_schema: Mapping[str, Any] | str | type | None
    regex: str | re.Pattern[str] | None
    grammar: str | None
    tools: Sequence[Callable[..., Any] | Mapping[str, Any]] | None
    tool_choice: str | Mapping[str, Any] | None


class Stats(NamedTuple):
    """What a generator has to do at the moment, and the memory that it takes."""

    running: int
    """Streams that have begun to read their prompt and have not ended."""
    waiting: int
    """Streams that want to begin, and wait for their turn or for memory."""
    kv_bytes: int
    """Keys and values of all streams and of what is kept, each page once; 0 for other engines than native."""
    kept_bytes: int
    """Those that are kept for prompts that begin like earlier ones."""


class Generator:
    """A Phi-3 model that streams text.

    Any number of streams of one generator can run at once, in one thread or many, or in tasks of asyncio: they share
    each pass over the model's weights, up to 32 of them, those that came first before others; and each has the text
    that it would have alone. What several prompts begin with is read once. Where memory gets short, the youngest wait
    until others have ended.

    Args:
        model: A ``.gguf`` file; a folder that holds one; a repository of the Hugging Face hub (``"owner/name"``, or
            ``"owner/name:Q5_K_M"`` to choose a quantization), fetched once and then found in the cache that
            ``huggingface_hub`` uses too; or ``"demo"``, the small model inside the package. ``None`` is
            ``Phi-3-mini-4k-instruct-q4.gguf`` of ``microsoft/Phi-3-mini-4k-instruct-gguf`` (2.4 GB), with the
            tokenizer of ``microsoft/Phi-3-mini-4k-instruct``.
        filename: Which file, when ``model`` is a folder or repository with several. Without it a Q4_K_M file is
            preferred, then one with q4 in its name.
        revision: A branch, a tag or a commit of the repository; ``None`` is its main branch. What is cached for a
            commit is used without asking the hub.
        tokenizer: A ``tokenizer.json`` (or a folder or repository that holds one) to use instead of the vocabulary
            in the GGUF.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:N"`` or ``"metal"``; the last three need a build with them.
        engine: ``"native"``, our own kernels on the CPU; ``"candle"``, for CUDA and Metal; ``"original"``, the loop
            candlewick grew from, kept for comparison; or ``"auto"``: native on the CPU, candle elsewhere.
        n_ctx: Context in tokens, prompt and answer together; ``None`` is what the model was made for. Memory for it
            is taken as it is used.
        n_threads: CPU threads; ``None`` is as many as this process may use. The other engines than native have one
            number for the whole process.
        kv_type: How keys and values are stored: ``"f32"``, ``"f16"`` (half the memory), ``"q8_0"`` (about a quarter;
            native only), or ``"auto"``: f32 for Candle on the CPU, where it is the fastest, f16 otherwise.
        mmap: Map the file (it must then not be shortened while in use; replacing it is fine), or read it.
        cache_dir: Where fetched files are kept; ``None`` is the folder of ``HF_HUB_CACHE``, ``HF_HOME`` or
            ``XDG_CACHE_HOME``, as for ``huggingface_hub``.
        local_files_only: Use what is in the cache and ask nobody. ``None`` does so if ``HF_HUB_OFFLINE`` is set.
        token: For gated and private repositories; ``None`` takes ``HF_TOKEN`` or what ``hf auth login`` stored, and
            ``False`` sends none.
        progress: Show a line while files are fetched or weights are loaded, on a terminal or in a notebook. A
            function is called instead, at most ten times a second, as ``progress(bytes_there, bytes_in_all, what)``,
            where ``what`` is the file's name while it is fetched and ``"loading "`` with the name while it is loaded;
            what it raises ends the work and is raised here.

    Raises:
        ModelNotFoundError: There is no such model.
        DownloadError: It could not be fetched. What was fetched is kept, and the next call goes on from there.
        ModelFormatError: The file is damaged or contradicts itself.
        UnsupportedModelError: The file is fine, but cannot be run here.
        OutOfMemoryError: It does not fit; the text has both numbers.
        InvalidRequestError: An argument is out of range.

    Example:
        >>> from candlewick import Generator
        >>> gen = Generator("demo")
        >>> text = "".join(gen.stream("Write a haiku about rain", temperature=0))
        >>> "rain" in text.lower()
        True
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        filename: str | None = None,
        revision: str | None = None,
        tokenizer: str | os.PathLike[str] | None = None,
        device: str = "auto",
        engine: str = "auto",
        n_ctx: int | None = None,
        n_threads: int | None = None,
        kv_type: str = "auto",
        mmap: bool = True,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool | None = None,
        token: str | bool | None = None,
        progress: bool | Report = True,
    ) -> None:
        hub = models.Hub(revision, cache_dir, local_files_only, token, progress)
        # The small file first: what is wrong with the network shows before gigabytes are fetched.
        tokenizer_path = models.resolve_tokenizer(tokenizer, hub, default=model is None)
        path = models.resolve(model, filename, hub)
        wanted = threads.number(n_threads)
        if engine in ("candle", "original") or device not in ("auto", "cpu"):
            threads.start_candle(n_threads)
        with reporting(progress, keep=False) as report:
            self._native = _native.Generator(
                path,
                tokenizer=tokenizer_path,
                device=device,
                engine=engine,
                n_ctx=n_ctx,
                n_threads=wanted,
                kv_type=kv_type,
                mmap=mmap,
                progress=report,
            )

    @classmethod
    def from_pretrained(cls, model: str | os.PathLike[str] | None = None, **options: Any) -> Self:
        """The same as ``Generator(model, **options)``, under the name that transformers has."""
        return cls(model, **options)

    @staticmethod
    def estimate(
        model: str | os.PathLike[str] | None = None,
        *,
        filename: str | None = None,
        n_ctx: int | None = None,
        kv_type: str = "auto",
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool | None = None,
        token: str | bool | None = None,
    ) -> Estimate:
        """What a model will take on the CPU, and whether it fits here; nothing is loaded, nor fetched.

        Of a model at the hub only the header is read, a few megabytes. The arguments are those of `Generator`.

        Raises:
            ModelNotFoundError, DownloadError, ModelFormatError, UnsupportedModelError: As for `Generator`.
            InvalidRequestError: An argument is out of range.

        Example:
            >>> from candlewick import Generator
            >>> estimate = Generator.estimate("demo")
            >>> estimate.fits, estimate.advice
            (True, ())
        """
        hub = models.Hub(revision, cache_dir, local_files_only, token)
        return estimate(models.header(model, filename, hub), n_ctx, kv_type)

    def stream(
        self,
        prompt: Prompt,
        *,
        max_tokens: int | None = None,
        temperature: float = 1.0,
        top_p: float = 1.0,
        top_k: int = 0,
        min_p: float = 0.0,
        repetition_penalty: float | None = None,
        repeat_last_n: int = 64,
        frequency_penalty: float = 0.0,
        presence_penalty: float = 0.0,
        stop: str | Sequence[str] | None = None,
        stop_token_ids: Sequence[int] | None = None,
        ignore_eos: bool = False,
        logit_bias: Mapping[int, float] | None = None,
        seed: int | None = None,
        speculative: Literal["auto"] | bool | int = "auto",
        raw: bool = False,
        typical_p: float = 1.0,
        xtc_probability: float = 0.0,
        xtc_threshold: float = 0.1,
        dry_multiplier: float = 0.0,
        dry_base: float = 1.75,
        dry_allowed_length: int = 2,
        dry_penalty_last_n: int = -1,
        dry_sequence_breakers: str | Sequence[str] = ("\n", ":", '"', "*"),
        no_repeat_ngram_size: int = 0,
        min_tokens: int = 0,
        bad_words: str | Sequence[str | int | Sequence[int]] | None = None,
        logprobs: int | None = None,
        logits_processor: LogitsProcessor | Sequence[LogitsProcessor] | None = None,
        max_new_tokens: int | None = None,
        repeat_penalty: float | None = None,
        json_schema: Mapping[str, Any] | str | type | None = None,
        regex: str | re.Pattern[str] | None = None,
        grammar: str | None = None,
        tools: Sequence[Callable[..., Any] | Mapping[str, Any]] | None = None,
        tool_choice: str | Mapping[str, Any] | None = None,
    ) -> TextStream:
        """Continues a prompt and gives the text as it is written.

        Arguments are checked here; the work starts with the first ``next()``.

        What chooses a token works in this order, whatever the order of the arguments: ``logits_processor``;
        ``logit_bias``; ``repetition_penalty``, ``frequency_penalty``, ``presence_penalty``; ``dry_*``; ``min_tokens``,
        ``bad_words``, ``no_repeat_ngram_size``; ``temperature``; ``top_k``; ``top_p``; ``min_p``; ``typical_p``;
        ``xtc_*``. It is that of transformers, so that each filter sees the probabilities that the draw will have;
        llama.cpp applies the temperature last. With ``temperature=0`` nothing after it plays a part.

        Args:
            prompt: A string, which becomes one user turn of the model's chat template; a list of messages, each
                ``{"role": "user", "content": "Hi"}``; or a list of token ids, taken as they are. Where the template
                has a place for them (Phi-4-mini's does, in the system message), ``"tools"`` of a message are the
                functions that the model may call: a string of JSON.
            max_tokens: Generated tokens at most; ``None`` goes to the end of the text or of the context. Also
                accepted as ``max_new_tokens``. With ``json_schema``, ``regex``, ``grammar`` or calls the text ends
                within it, complete, and ``finish_reason`` is ``"stop"`` or ``"tool_calls"``: near its end only tokens
                are drawn after which what is left can still be written. Where it does not suffice for the shortest
                text, or no such text is found (a rule of the grammar has ``max_tokens``; what it takes is forbidden),
                the text is cut off and ``finish_reason`` is ``"length"``.
            temperature: Divides the logits; 0 always takes the likeliest token, 1 draws as the model was trained.
            top_p: Draws from the likeliest tokens that together reach this probability; above 0, 1 is off.
            top_k: Draws from this many of the likeliest tokens; 0 is off.
            min_p: Draws from tokens at least this share as likely as the likeliest; 0 to 1, 0 is off.
            repetition_penalty: Makes generated tokens less likely to come again; above 0, 1 (the default) is off.
                Also accepted as ``repeat_penalty``.
            repeat_last_n: How many generated tokens ``repetition_penalty`` looks back on.
            frequency_penalty: Lowers a token's logit by this for each time it was generated; -2 to 2.
            presence_penalty: Lowers the logit of each token that was generated; -2 to 2.
            stop: A string, or several, that end the text and are not part of it.
            stop_token_ids: Token ids that end the text and are not part of it.
            ignore_eos: Go on past the model's own end tokens, whose text is empty.
            logit_bias: Added to the logits of these token ids; ``float("-inf")`` forbids one.
            seed: 0 to 2**64 - 1: the same seed gives the same text. ``None`` draws one, which ``.seed`` tells.
            speculative: Guess tokens from where the text's last words occurred before, and check several in one step:
                the same text, sooner where it repeats its context. ``"auto"`` guesses as many as pay; 1 to 8 is a
                number of guesses; ``False`` is none. The native engine only.
            raw: Give the string to the model as it is, without chat template.
            typical_p: Draws from the tokens about as surprising as is to be expected that together reach this
                probability (locally typical sampling); above 0, 1 is off.
            xtc_probability: How often, 0 to 1, the top choices are left out: of the tokens that are at least
                ``xtc_threshold`` likely only the least likely stays. 0 is off.
            xtc_threshold: What counts as a top choice for ``xtc_probability``; 0 to 1, above 0.5 is off.
            dry_multiplier: A token that goes on with a repetition of n tokens, prompt included, loses
                ``dry_multiplier * dry_base ** (n - dry_allowed_length)`` of its logit; from 0, which is off. 0.8 is
                usual.
            dry_base: How fast that grows with the repetition; from 1.
            dry_allowed_length: The longest repetition that costs nothing is one shorter than this; from 1.
            dry_penalty_last_n: How many tokens it looks back on; -1 is all.
            dry_sequence_breakers: Strings that no repetition goes across, such as the names of a dialogue.
            no_repeat_ngram_size: No so many tokens in a row come twice, as in transformers: those of the prompt count
                too. 0 is off.
            min_tokens: The text does not end by itself before so many tokens: the model's end tokens and
                ``stop_token_ids`` are forbidden until then, and stop strings are looked for in what follows.
            bad_words: What must not be written: a string, or a list of strings, token ids and lists of ids. A string
                stands for the ids that the tokenizer gives it at the beginning of a text, after a space and within a
                word; other spellings, in smaller tokens, are not noticed.
            logprobs: How many of the likeliest tokens to tell for each token, 0 to 20, as ``Token.top_logprobs``.
            logits_processor: A function ``f(ids, logits)``, or several in order, called once for each token with the
                ids so far, prompt included, and the model's logits, float32 (vocab_size,): a NumPy array where NumPy is
                installed, else a ``memoryview``. It changes them in place, or returns others. -inf forbids a token.
                What it raises ends the stream and is raised by ``next()``.
            max_new_tokens: Another name of ``max_tokens``.
            repeat_penalty: Another name of ``repetition_penalty``.
            json_schema: The text is JSON that this schema allows, without white space: a dict or a str of JSON Schema,
                or a type (a pydantic model, a dataclass, a ``TypedDict``, ``list[int]``, ...), whose object is then
                `Completion.parsed`. Keywords that cannot be enforced are refused. The model is not told of the schema:
                say in the prompt what is wanted.
            regex: The whole text matches this regular expression (without look-around and back-references).
            grammar: The text is one that this Lark grammar derives from ``start``.
            tools: Functions that the answer may call: Python functions, described by their annotations and
                docstrings, or schemas in OpenAI's form. They are listed in the prompt, if it goes through the chat
                template; the calls are in `Completion.tool_calls`, with arguments that fit.
            tool_choice: ``"auto"`` (the default: words or calls), ``"required"``, ``{"name": ...}`` for a certain one,
                or ``"none"``, as if there were no tools.

        Returns:
            A `TextStream`: iterate over it with ``for`` or ``async for``.

        Raises:
            InvalidRequestError: An argument is out of range, or the prompt is empty or no valid text.
            ContextLengthError: The prompt does not fit in the context.
            TypeError: An argument has the wrong type, or is given under both of its names.

        Example:
            >>> from candlewick import Generator
            >>> gen = Generator("demo")
            >>> for text in gen.stream("Write a haiku about ice hockey", max_tokens=100):
            ...     print(text, end="", flush=True)  # doctest: +SKIP
        """
        arguments = {name: value for name, value in locals().items() if name not in ("self", "prompt")}
        native, reader = self._start(prompt, arguments)
        return TextStream(native, reader, Origin(self, arguments))

    def chat(
        self,
        system: str | None = None,
        *,
        messages: Sequence[Mapping[str, Any]] | None = None,
        overflow: Overflow = "error",
        **defaults: Unpack[Options],
    ) -> Chat:
        """Begins a conversation, which pays for each of its tokens once.

        Args:
            system: The system message.
            messages: What was said before, if anything.
            overflow: What happens when the conversation outgrows the context: ``"error"`` refuses to go on;
                ``"truncate_oldest"`` forgets the oldest turns, a user's message and all that follows up to the next
                one, until ``max_tokens`` or a quarter of the context are free. The system message always stays.
            **defaults: As for `stream`, but for ``raw``: what each `Chat.send` takes for granted.

        Raises:
            InvalidRequestError: There are two system messages, or an argument that a conversation does not have.

        Example:
            >>> from candlewick import Generator
            >>> chat = Generator("demo").chat(temperature=0)
            >>> text = "".join(chat.send("Write a haiku about fog"))
            >>> chat.messages[1] == {"role": "assistant", "content": text}
            True
        """
        return Chat(self, system, messages, overflow, defaults)

    def stream_tokens(self, prompt: Prompt, **options: Unpack[Options]) -> TokenStream:
        """As `stream`, token by token: gives `Token` (id, text, logprob), whose texts join to the stream's text."""
        stream = self.stream(prompt, **options)
        return TokenStream(stream._native, stream._reader, stream._origin)

    def generate(self, prompt: Prompt, **options: Unpack[Options]) -> Completion:
        """As `stream`, but waits for the end and returns a `Completion`; ``str()`` of it is the text."""
        with self.stream(prompt, **options) as stream:
            for _ in stream:
                pass
            return stream.completion()

    @overload
    def generate_batch(
        self,
        prompts: Iterable[Prompt],
        *,
        return_exceptions: Literal[False] = False,
        progress: bool | Report = True,
        **options: Unpack[Options],
    ) -> list[Completion]: ...

    @overload
    def generate_batch(
        self,
        prompts: Iterable[Prompt],
        *,
        return_exceptions: bool,
        progress: bool | Report = True,
        **options: Unpack[Options],
    ) -> list[Completion | BaseException]: ...

    def generate_batch(
        self,
        prompts: Iterable[Prompt],
        *,
        return_exceptions: bool = False,
        progress: bool | Report = True,
        **options: Unpack[Options],
    ) -> Any:
        """As `generate` for each of many prompts, several of which share each pass over the model's weights.

        Each completion is the one that its prompt has alone. What prompts begin with is read once.

        Args:
            prompts: Each as for `stream`.
            return_exceptions: Put what goes wrong with a prompt in its place in the list. Otherwise the first error
                ends the others and is raised, and says which prompt it is about.
            progress: Show a line on a terminal or in a notebook. A function is called instead, after each prompt that
                is done, as ``progress(prompts_done, prompts_in_all, "generating")``; what it raises ends the work and
                is raised here.
            **options: As for `stream`, for all prompts; but with ``seed=n`` the first prompt has the seed ``n``, the
                next one ``n + 1`` and so on, so that one prompt given twice has two answers. `Completion.seed` tells.

        Returns:
            The completions, in the order of the prompts.

        Raises:
            InvalidRequestError: An argument is out of range, or ``prompts`` is one prompt and no list of them.
            ContextLengthError: A prompt does not fit in the context.

        Example:
            >>> from candlewick import Generator
            >>> gen = Generator("demo")
            >>> poems = gen.generate_batch([f"Write a haiku about {topic}" for topic in ("fog", "tea")], seed=1)
            >>> poems[1].text == gen.generate("Write a haiku about tea", seed=2).text
            True
        """
        # Imported by those who call it alone: `import candlewick` is quick.
        from candlewick.batch import generate_batch

        return generate_batch(self, prompts, return_exceptions, progress, options)

    def score(self, text: Prompt) -> Score:
        """How likely the model finds a text: the log-probability of each token after those before it.

        Args:
            text: A string, taken as it is (with BOS where the file asks for it, and without chat template); a list of
                messages, put through the template, ready for an answer; or a list of token ids.

        Raises:
            InvalidRequestError: There are fewer than two tokens.
            ContextLengthError: It does not fit in the context.

        Example:
            >>> from candlewick import Generator
            >>> gen = Generator("demo")
            >>> gen.score("a cup of tea").perplexity < gen.score("tea of cup a").perplexity
            True
        """
        tokens, logprobs = self._native.score(text)
        return Score(
            ids=tuple(id for id, _ in tokens), tokens=tuple(text for _, text in tokens), logprobs=(None, *logprobs)
        )

    def _start(self, prompt: Prompt, arguments: dict[str, Any]) -> tuple[_native.Stream, Reader | None]:
        for name, other in OTHER_NAMES:
            value = arguments.pop(other)
            if value is not None:
                if arguments[name] is not None:
                    raise TypeError(f"{name} and {other} are two names of the same argument: give one of them")
                arguments[name] = value
            elif arguments[name] is None:
                arguments[name] = _UNSAID[name]
        prompt, arguments["constraint"], reader = structured.read(arguments, prompt, self.apply_chat_template)
        processor = arguments["logits_processor"]
        if processor is not None:
            processor = Processors(processor)
        return self._native.stream(prompt, **{**arguments, "logits_processor": processor}), reader

    def _again(self, prompt_ids: list[int], parameters: Mapping[str, Any]) -> TokenStream:
        """The tokens of what a trace records; its parameters are those that `_start` made of the arguments."""
        defaults = {**(Generator.stream.__kwdefaults__ or {}), **_UNSAID, "constraint": None}
        for name in (*structured.NAMES, *(other for _, other in OTHER_NAMES), "raw"):
            del defaults[name]
        parameters = {**defaults, **parameters}
        constraint = parameters["constraint"]
        if constraint is not None:
            # JSON has no tuples.
            name, value = constraint
            if name == "tools":
                prefix, or_text, functions = value
                value = (prefix, or_text, [tuple(function) for function in functions])
            parameters = {**parameters, "constraint": (name, value)}
        native = self._native.stream(prompt_ids, raw=False, **parameters)
        return TokenStream(native, None, Origin(self, parameters))

    @property
    def tokenizer(self) -> _native.Tokenizer:
        """The model's vocabulary: ``encode``, ``decode``, ``vocab_size``, ``eos_token_ids``."""
        return self._native.tokenizer

    def apply_chat_template(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """The prompt text that ``messages`` become, ready for the assistant's answer."""
        return self._native.apply_chat_template(messages)

    @property
    def n_ctx(self) -> int:
        """Tokens that prompt and answer can have together."""
        return self._native.n_ctx

    @property
    def info(self) -> dict[str, Any]:
        """What was loaded: architecture, quantization, engine, device, context, threads, memory and the audit.

        ``info["kept_bytes"]`` are the keys and values that are kept for prompts that begin like earlier ones, at most
        those of one whole context, and no more than is free.
        ``info["slow_types"]`` are the types of matrices that are dequantized whenever they are used.
        ``info["audit"]`` names the model's and the tokenizer's metadata keys and the tensors that are ``"used"``, and
        the keys that are there but change nothing (``"harmless"``); any other is an error at load.
        """
        return self._native.info

    @property
    def stats(self) -> Stats:
        """How many streams run and wait, and what their keys and values take; cheap, from any thread."""
        return Stats(*self._native.stats)

    def clear_cache(self) -> None:
        """Forgets what was read and written before: the next prompt is read from its beginning.

        What is kept speeds up prompts that begin like an earlier one, changes no result, is bounded by the context
        and goes by itself when memory is short; this is for those who measure, or want the memory at once.
        """
        self._native.clear_cache()

    def close(self) -> None:
        """Gives the memory back. Streams that still run keep what they need until they end."""
        self._native.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        if self._native.closed:
            return "<Generator closed>"
        info = self.info
        return (
            f"<Generator {info['name'] or info['path'].name} {info['quantization']}, {info['engine']} engine on "
            f"{info['device']}, context {info['n_ctx']}>"
        )
