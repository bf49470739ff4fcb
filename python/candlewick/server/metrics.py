"""Counts and times in Prometheus' text format, version 0.0.4.

A client library would bring registries, processes and exporters; these are a few numbers of one process.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from candlewick.stream import TokenStream

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)


class Counter:
    """A number that only grows, one for each combination of labels."""

    def __init__(self, name: str, about: str, labels: tuple[str, ...] = ()) -> None:
        self._name, self._about, self._labels = name, about, labels
        self._values: dict[tuple[str, ...], float] = {} if labels else {(): 0}

    def add(self, n: float, *labels: str) -> None:
        self._values[labels] = self._values.get(labels, 0) + n

    def values(self) -> dict[tuple[str, ...], float]:
        """The counts so far, by their labels."""
        return dict(self._values)

    def lines(self) -> Iterator[str]:
        yield from _head(self._name, self._about, "counter")
        for values, n in self._values.items():
            pairs = ",".join(f'{name}="{_escaped(value)}"' for name, value in zip(self._labels, values, strict=True))
            yield f"{self._name}{{{pairs}}} {n}" if pairs else f"{self._name} {n}"


class Histogram:
    """How often a time was at most so long."""

    def __init__(self, name: str, about: str) -> None:
        self._name, self._about = name, about
        self._counts = [0] * (len(_SECONDS) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        self._counts[bisect.bisect_left(_SECONDS, seconds)] += 1
        self._sum += seconds

    def lines(self) -> Iterator[str]:
        yield from _head(self._name, self._about, "histogram")
        so_far = 0
        for limit, n in zip((*map(str, _SECONDS), "+Inf"), self._counts, strict=True):
            so_far += n
            yield f'{self._name}_bucket{{le="{limit}"}} {so_far}'
        yield f"{self._name}_sum {self._sum}"
        yield f"{self._name}_count {so_far}"


class Metrics:
    """All that is counted."""

    def __init__(self) -> None:
        self.requests = Counter(
            "candlewick_requests_total",
            "Requests by path and status; 499 are those whose client left.",
            ("path", "status"),
        )
        self.prompt_tokens = Counter("candlewick_prompt_tokens_total", "Tokens of prompts.")
        self.cached_tokens = Counter(
            "candlewick_cached_tokens_total", "Tokens of prompts that were not computed again."
        )
        self.completion_tokens = Counter("candlewick_completion_tokens_total", "Generated tokens.")
        self.request_s = Histogram("candlewick_request_seconds", "From a request to the end of its answer.")
        self.queue_s = Histogram("candlewick_queue_seconds", "Until it was a request's turn.")
        self.first_token_s = Histogram("candlewick_time_to_first_token_seconds", "From a request to its first token.")
        self.token_s = Histogram("candlewick_time_per_token_seconds", "Between two tokens of an answer, on average.")

    def count(self, stream: TokenStream, waited_s: float) -> None:
        """Takes in an answer that has ended."""
        usage, timings = stream.usage, stream.timings
        if timings.ttft_s is None:
            return
        self.prompt_tokens.add(usage.prompt_tokens)
        self.cached_tokens.add(usage.cached_tokens)
        self.completion_tokens.add(usage.completion_tokens)
        self.first_token_s.observe(waited_s + timings.ttft_s)
        if timings.generation_tps:
            self.token_s.observe(1 / timings.generation_tps)

    def text(self, gauges: Mapping[str, tuple[str, float]]) -> str:
        """Everything, with ``gauges``: by name, what it is and how much."""
        lines: list[str] = []
        for metric in vars(self).values():
            lines += metric.lines()
        for name, (about, n) in gauges.items():
            lines += [*_head(name, about, "gauge"), f"{name} {n}"]
        return "\n".join(lines) + "\n"


def _head(name: str, about: str, kind: str) -> list[str]:
    return [f"# HELP {name} {about}", f"# TYPE {name} {kind}"]


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
