"""Numbers as a reader wants them: four figures, intervals in brackets, long hashes cut."""

import math
from typing import Any

HASH_LENGTH = 64
HASH_SHOWN = 12
NONE = "\u2013"
MINUS = "\u2212"
LARGE = 1_000  # from here on a number is shown whole
LIST_SHOWN = 8


def number(value: Any, figures: int = 4) -> str:
    """Return a number with four figures, whole numbers with separators, a dash for what is no number."""
    if value is None or isinstance(value, bool) or not isinstance(value, int | float):
        return NONE
    if not math.isfinite(value):
        return str(value)
    whole = isinstance(value, int) or abs(value) >= LARGE
    text = f"{value:,.0f}" if whole or abs(value) >= 10**figures else f"{value:.{figures}g}"
    return text.replace("-", MINUS, 1) if text.startswith("-") else text


def with_interval(value: Any, interval: dict[str, Any] | None) -> str:
    """Return a value followed by its interval in brackets where it has one."""
    if not interval or interval.get("low") is None or interval.get("high") is None:
        return number(value)
    return f"{number(value)} [{number(interval['low'])}, {number(interval['high'])}]"


def proportion(found: dict[str, Any]) -> str:
    """Return a value with its interval and, where it is a share, of how many."""
    text = with_interval(found["value"], found) if "value" in found else with_interval(None, found)
    if "value" not in found:
        text = text.removeprefix(NONE).strip()
    return f"{text}, {found['hits']:,} of {found['count']:,}" if {"hits", "count"} <= found.keys() else text


def plain(value: Any) -> str:
    """Return any value of a report as short text; long lists are counted, hashes cut."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return number(value)
    if value is None:
        return NONE
    if isinstance(value, list | tuple):
        listed = ", ".join(map(plain, value)) if len(value) <= LIST_SHOWN else f"{len(value):,} values"
        return listed or NONE
    if isinstance(value, dict):
        return ", ".join(f"{words(str(name))} {plain(one)}" for name, one in value.items()) or NONE
    return short(str(value))


def short(text: str) -> str:
    """Return a sha256 cut to its first digits, other text as it is."""
    is_hash = len(text) == HASH_LENGTH and set(text) <= set("0123456789abcdef")
    return text[:HASH_SHOWN] if is_hash else text


def words(name: str) -> str:
    """Return a key of a report as words."""
    return name.replace("_", " ").strip()
