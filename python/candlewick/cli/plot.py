"""The figures of `candlewick bench` as a picture: SVG text, made of bars."""

from __future__ import annotations

from html import escape
from typing import Any, NamedTuple

from candlewick.cli.size import readable

WIDTH, HEIGHT = 800, 400
TOP, BOTTOM, PANEL = 100, 330, 350


class Bar(NamedTuple):
    """A bar, what it reaches from run to run, and what is said below it."""

    label: str
    median: float
    low: float
    high: float
    note: str
    limit: float | None


def svg(result: dict[str, Any]) -> str:
    """The picture of one result."""
    model = result["model"]
    facts = (
        f"{result['engine']} engine, tier {result['isa']}, {result['n_threads']} threads, keys and values "
        f"{result['kv_type']}; {result['cpu']}"
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'font-family="system-ui, sans-serif" font-size="13" fill="#222">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        _text(30, 30, f"{model['path'].name}, {readable(model['file_bytes'])}", size=17),
        _text(30, 50, facts, color="#666"),
        *_panel(30, "Prompt, tokens a second, by its length", "the rate of byte products", _prefill(result)),
        *_panel(30 + PANEL + 40, "Decoding, tokens a second, by context", "a plain read of memory", _decode(result)),
        "</svg>\n",
    ]
    return "\n".join(parts)


def _prefill(result: dict[str, Any]) -> list[Bar]:
    return [_bar(entry, entry["tokens"], entry["of_products"]) for entry in result["prefill"]]


def _decode(result: dict[str, Any]) -> list[Bar]:
    return [_bar(entry, entry["context"], entry["of_read"]) for entry in result["decode"]]


def _bar(entry: dict[str, Any], n: int, share: float | None) -> Bar:
    spread = entry["tokens_per_s"]
    note = "" if share is None else f"{100 * share:.0f}%"
    limit = None if share is None else spread["median"] / share
    return Bar(f"{n:,}", spread["median"], spread["min"], spread["max"], note, limit)


def _panel(left: int, title: str, limit: str, bars: list[Bar]) -> list[str]:
    parts = [_text(left, 82, title, size=14)]
    if not bars:
        return parts
    most = max(bar.high for bar in bars)
    # A limit far above would leave nothing of the bars.
    limits = [bar.limit for bar in bars if bar.limit is not None and bar.limit <= 2.5 * most]
    scale = (BOTTOM - TOP - 20) / max([most, *limits])
    step = PANEL / len(bars)
    width = min(0.6 * step, 60)
    parts.append(f'<path d="M{left} {BOTTOM}h{PANEL}" stroke="#222"/>')
    for i, bar in enumerate(bars):
        x = left + (i + 0.5) * step
        top = BOTTOM - bar.median * scale
        parts.append(
            f'<rect x="{x - width / 2:.1f}" y="{top:.1f}" width="{width:.1f}" height="{bar.median * scale:.1f}" '
            'fill="#e0a030"/>'
        )
        low, high = BOTTOM - bar.low * scale, BOTTOM - bar.high * scale
        parts.append(f'<path d="M{x:.1f} {low:.1f}V{high:.1f}" stroke="#7a5000" stroke-width="2"/>')
        if bar.limit in limits and bar.limit is not None:
            y = BOTTOM - bar.limit * scale
            parts.append(
                f'<path d="M{x - width / 2 - 6:.1f} {y:.1f}h{width + 12:.1f}" stroke="#36c" stroke-dasharray="4 3"/>'
            )
        digits = 0 if bar.median >= 99.5 else 1
        # At the foot of the bar, where nothing else is, or above one that is too low for it.
        y = BOTTOM - 8 if top < BOTTOM - 24 else min(top, high) - 6
        parts.append(_text(x, y, f"{bar.median:,.{digits}f}", anchor="middle"))
        parts.append(_text(x, BOTTOM + 18, bar.label, anchor="middle"))
        parts.append(_text(x, BOTTOM + 36, bar.note, anchor="middle", color="#36c", size=11))
    if any(bar.note for bar in bars):
        text = f"of what {limit} allows" + (" (dashed)" if limits else "")
        parts.append(_text(left + PANEL / 2, BOTTOM + 54, text, anchor="middle", color="#36c", size=11))
    return parts


def _text(x: float, y: float, text: str, *, anchor: str = "start", color: str = "#222", size: int = 13) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{color}" font-size="{size}">{escape(text)}</text>'
    )
