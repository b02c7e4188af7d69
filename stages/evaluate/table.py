"""The scores as a small table for the terminal."""

from collections.abc import Sequence
from typing import Any

COLUMNS = ("floor", "untrained", "colour histogram")


def table(report: dict[str, Any]) -> str:
    """Return scores with intervals, floor and baselines as aligned lines; what was not measured shows a dash."""
    rows = [("", report["model"], *COLUMNS)]
    for name in report["scores"]:
        if not is_spread(name):
            own = f"{_cell(report['scores'], name)} {interval_text(report['intervals'].get(name))}".removesuffix(" -")
            rows.append((name, own, *(_cell(found, name) for found in _columns(report)[1:])))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(_line(row, widths) for row in rows)


def _line(row: tuple[str, ...], widths: list[int]) -> str:
    cells = [f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True)]
    return "  ".join([f"{row[0]:<{widths[0]}}", *cells]).rstrip()


def _columns(report: dict[str, Any]) -> list[dict[str, float]]:
    baselines = report["baselines"]
    return [report["scores"], report["floor"], baselines["untrained"], baselines["colour_histogram"]]


def _cell(found: dict[str, float], name: str) -> str:
    return f"{found[name]:.4g}" if name in found else "-"


def sampling_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return ways to sample with their scores and CPU-seconds per picture as aligned lines."""
    known = ("steps", "guidance", "truncation", "fd", "precision", "recall", "cpu_seconds")
    names = tuple(name for name in known if any(row.get(name) is not None for row in rows))
    cells = [tuple("-" if row.get(name) is None else f"{row[name]:.4g}" for name in names) for row in rows]
    return "\n".join(["", "other ways to sample; CPU-seconds are per picture", *aligned([names, *cells])])


def plain_table(report: dict[str, Any]) -> str:
    """Return the scores of two plain sources: value, 95 % interval, which way is better; then classes, then recipe."""
    (label, recipe), *_ = report["recipes"].items()
    title = f"{report['generated']['name']} ({recipe['count']}) against {report['real']['name']}"
    title += f" ({recipe['reference_count']}), features {label}"
    found = report["floor"]
    rows: list[tuple[str, ...]] = [("", "value", "95 % interval", "better", "floor")]
    rows += [
        (name, f"{value:.6g}", interval_text(report["intervals"].get(name)), better(name), _cell(found, name))
        for name, value in report["scores"].items()
        if not is_spread(name)
    ]
    lines = [title, "" if "fid" in report["scores"] else "this is not FID: only Inception's standard weights give it"]
    lines += aligned(rows)
    if found:
        lines.append("floor: {} of the real pictures against the other {}".format(*report["floor_counts"]))
    if "per_class" in report:
        lines += aligned(_class_rows(report["per_class"]))
        lines += [f"no fd of {name}: {reason}" for name, reason in report["per_class"]["left_out"].items()]
    return "\n".join([line for line in lines if line] + [f"recipe {recipe['hash'][:16]}"])


def _class_rows(per_class: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return a row per class: its numbers of generated and real pictures, its distance, its shares."""
    shares = ("precision", "recall", "coverage")
    rows: list[tuple[str, ...]] = [("class", "generated", "real", "fd", *shares)]
    for name, counts in per_class["counts"].items():
        distance = per_class["fd"].get(name)
        found = [per_class[kind].get(name, {}).get("value") for kind in shares]
        rows.append(
            (name, *map(str, counts), *("-" if value is None else f"{value:.4g}" for value in (distance, *found)))
        )
    return rows


def interval_text(interval: dict[str, float] | None) -> str:
    """Return an interval as people write it, a dash where there is none."""
    return f"[{interval['low']:.4g}, {interval['high']:.4g}]" if interval else "-"


def better(name: str) -> str:
    """Return which way a score is better."""
    return "lower" if is_lower_better(name) else "higher"


def is_lower_better(name: str) -> bool:
    """Tell whether a score of this name is a distance."""
    return name.startswith(("fid", "fd_", "kid_"))


def is_spread(name: str) -> bool:
    """Tell whether a name is not of a score but of another score's spread."""
    return "_std" in name or name.startswith("kid_se")


def aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Return rows as lines of aligned columns, the first to the left."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [_line(row, widths) for row in rows]
