"""The scores as a small table for the terminal."""

from typing import Any

COLUMNS = ("floor", "untrained", "colour histogram")


def table(report: dict[str, Any]) -> str:
    """Return scores, floor and baselines as aligned lines; a baseline that was not measured shows a dash."""
    rows = [("", report["model"], *COLUMNS)]
    for name in report["scores"]:
        if not name.startswith("kid_std_"):
            rows.append((name, *(_cell(found, name) for found in _columns(report))))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(_line(row, widths) for row in rows)


def _line(row: tuple[str, ...], widths: list[int]) -> str:
    cells = [f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True)]
    return "  ".join([f"{row[0]:<{widths[0]}}", *cells]).rstrip()


def _columns(report: dict[str, Any]) -> list[dict[str, float]]:
    baselines = report["baselines"]
    return [report["scores"], report["floor"], baselines["untrained"], baselines["colour_histogram"]]


def _cell(found: dict[str, float], name: str) -> str:
    if name not in found:
        return "-"
    deviation = found.get(name.replace("kid_", "kid_std_", 1)) if name.startswith("kid_") else None
    return f"{found[name]:.4g}" + (f" ± {deviation:.2g}" if deviation is not None else "")
