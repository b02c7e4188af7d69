"""Bars and steps as inline SVG, in the colours of the page that holds them."""

from html import escape
from typing import Any

WIDTH, HEIGHT = 320, 120
LABEL_HEIGHT = 16
WIDEST = 48  # of a bar
CHANNEL_COLOURS = {"r": "#d33", "g": "#2a2", "b": "#36d"}


def bars(bins: list[dict[str, Any]], title: str) -> str:
    """Draw how many pictures fall into each bin (`from`, `below`, `count`), the bin's lower end written below it."""
    highest = max(one["count"] for one in bins) or 1
    step = min(WIDTH / len(bins), WIDEST)
    parts = [_bar(order * step, step, one, one["count"] / highest) for order, one in enumerate(bins)]
    return _svg("".join(parts), title, HEIGHT + LABEL_HEIGHT)


def _bar(left: float, step: float, one: dict[str, Any], share: float) -> str:
    height = share * (HEIGHT - LABEL_HEIGHT)
    middle = left + step / 2
    return (
        f'<rect class="bar" x="{left + 1:.1f}" y="{HEIGHT - height:.1f}" width="{step - 2:.1f}" height="{height:.1f}"/>'
        f'<text x="{middle:.1f}" y="{HEIGHT - height - 3:.1f}">{one["count"]}</text>'
        f'<text x="{middle:.1f}" y="{HEIGHT + LABEL_HEIGHT - 4}">{one["from"]}</text>'
    )


def curves(histogram: dict[str, list[float]], title: str) -> str:
    """Draw the share of values per bin of each channel, as lines on one scale."""
    highest = max(max(shares) for shares in histogram.values()) or 1
    lines = []
    for channel, shares in histogram.items():
        step = WIDTH / len(shares)
        points = " ".join(f"{(n + 0.5) * step:.1f},{HEIGHT * (1 - s / highest):.1f}" for n, s in enumerate(shares))
        lines.append(f'<polyline points="{points}" fill="none" stroke="{CHANNEL_COLOURS[channel]}" stroke-width="2"/>')
    return _svg("".join(lines), title, HEIGHT)


def _svg(content: str, title: str, height: int) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}"><title>{escape(title)}</title>'
        f"{content}</svg>"
    )
