"""The charts of the reports: scores with intervals, series over kimg, spectra, latency, quality against latency."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.evaluate.page.svg import DASHES, LINE, MARKERS, SERIES, light_grid, new_figure, page_style, to_svg
from stages.generators.onnx_metadata import FULL

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 3
PANEL_WIDTH, LABELS_WIDTH, ROW_HEIGHT, PANEL_EXTRA = 2.85, 1.6, 0.26, 0.85  # inches
WIDE, HIGH = 9.4, 3.4
ONE_PANEL_WIDTH = 4.5
LOGARITHMIC_FROM = 20.0  # largest over smallest value, above which a linear axis would hide the small ones
DECADES_ONLY_FROM = 100.0
LABEL_LENGTH = 24


@dataclass(frozen=True)
class Dot:
    """A value, None where it was not measured, with its interval where it has one; `strong`: the chart's subject."""

    label: str
    value: float | None
    low: float | None = None
    high: float | None = None
    strong: bool = False


@dataclass(frozen=True)
class Panel:
    """Values of one score on one axis; `band` is the smallest difference to the first value that can be told apart.

    All panels of a chart have the same labels in the same order; at least one value is there.
    """

    title: str
    dots: list[Dot]
    lower: bool | None = None  # whether lower values are better
    band: float | None = None


@dataclass(frozen=True)
class Curve:
    """A named line through one or more points."""

    label: str
    x: Sequence[float]
    y: Sequence[float]


def finite(value: Any) -> bool:
    """Return whether a value of a report is a number that can be drawn."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def dots_and_whiskers(panels: list[Panel], alt: str) -> str:
    """Draw one small chart per score, each with the same rows from top to bottom."""
    columns = min(COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    height = rows * (len(panels[0].dots) * ROW_HEIGHT + PANEL_EXTRA)
    with page_style():
        width = PANEL_WIDTH * columns if columns > 1 else ONE_PANEL_WIDTH
        figure = new_figure(width + LABELS_WIDTH, height)
        grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
        for place, axes in enumerate(grid.flat):
            if place < len(panels):
                _panel(axes, panels[place])
            else:
                axes.set_visible(False)
        return to_svg(figure, alt)


def _panel(axes: "Axes", panel: Panel) -> None:
    first = panel.dots[0].value
    values = [value for dot in panel.dots for value in (dot.value, dot.low, dot.high) if value is not None]
    if panel.band is not None and first is not None:
        axes.axvspan(first - panel.band, first + panel.band, color=SERIES[0], alpha=0.15, linewidth=0)
    for place, dot in enumerate(panel.dots):
        _dot(axes, dot, place)
    axes.set_yticks(range(len(panel.dots)), [cut(dot.label) for dot in panel.dots])
    axes.set_ylim(len(panel.dots) - 0.5, -0.5)
    axes.set_title(panel.title, loc="left")
    logarithmic = _scale(axes, values, panel.lower is True)
    better = {True: "\u2190 better", False: "better \u2192", None: ""}[panel.lower]
    axes.set_xlabel(
        f"{better}  (logarithmic)" if logarithmic else better, loc="right" if panel.lower is False else "left"
    )
    light_grid(axes, "x")


def _dot(axes: "Axes", dot: Dot, place: int) -> None:
    if dot.value is None:
        return
    colour = SERIES[0] if dot.strong else SERIES[5]
    look: dict[str, Any] = {"color": colour, "clip_on": False, "zorder": 3}
    if dot.low is not None and dot.high is not None:
        axes.plot([dot.low, dot.high], [place, place], linewidth=2, marker="|", markersize=8, **look)
    face = colour if dot.strong else "none"
    axes.plot([dot.value], [place], marker="o" if dot.strong else "D", markersize=6, markerfacecolor=face, **look)


def _scale(axes: "Axes", values: list[float], distances: bool) -> bool:
    """Set the axis of values and return whether it is logarithmic; shares never are."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    ratio = max(values) / min(values) if distances and min(values) > 0 else 1.0
    if ratio > LOGARITHMIC_FROM:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 3) if ratio < DECADES_ONLY_FROM else (1,), numticks=5))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        return True
    axes.xaxis.set_major_locator(MaxNLocator(4))
    if min(values) >= 0:
        axes.set_xlim(0, max(max(values), axes.get_xlim()[1]) or 1)
    return False


def cut(text: str) -> str:
    """Return a label that fits beside a chart; its middle is left out where it is long."""
    half = LABEL_LENGTH // 2 - 1
    return text if len(text) <= LABEL_LENGTH else f"{text[:half]}\u2026{text[-half:]}"


def curves(series: list[Curve], x_name: str, y_name: str, alt: str) -> str:
    """Draw named lines on one axis."""
    with page_style():
        figure = new_figure(WIDE, HIGH)
        axes = figure.subplots()
        for place, one in enumerate(series):
            look: dict[str, Any] = {"color": SERIES[place % 6], "linestyle": DASHES[place % 6], "linewidth": 1.6}
            if len(one.x) < 3:
                look["marker"] = MARKERS[place % 6]
            axes.plot(one.x, one.y, label=one.label, **look)
        if min(min(one.y) for one in series) < 0 < max(max(one.y) for one in series):
            axes.axhline(0, color=LINE, linewidth=1.2)
        axes.set_xlabel(x_name)
        axes.set_ylabel(y_name)
        light_grid(axes)
        figure.legend(loc="outside right upper")
        return to_svg(figure, alt)


def bars(labels: list[str], groups: dict[str, list[float]], y_name: str, alt: str) -> str:
    """Draw groups of bars side by side, a place for each label."""
    with page_style():
        figure = new_figure(WIDE, HIGH)
        axes = figure.subplots()
        width = 0.8 / len(groups)
        for place, (name, values) in enumerate(groups.items()):
            left = [spot - 0.4 + width * (place + 0.5) for spot in range(len(labels))]
            axes.bar(left, values, width * 0.92, label=name, color=SERIES[place], linewidth=0)
        turn = 60 if len(labels) > 8 else 0
        look: dict[str, Any] = {"rotation": turn, "ha": "right" if turn else "center", "rotation_mode": "anchor"}
        axes.set_xticks(range(len(labels)), [cut(label) for label in labels], fontsize=8 if turn else 10, **look)
        axes.set_xlim(-0.6, len(labels) - 0.4)
        axes.set_ylabel(y_name)
        light_grid(axes, "y")
        figure.legend(loc="outside right upper")
        return to_svg(figure, alt)


def latency(rows: list[dict[str, Any]], alt: str) -> str:
    """Draw p50 with a whisker to p95, and pictures per second, against batch size; a line per runtime, logarithmic."""
    names = dict.fromkeys(runtime_name(row) for row in rows)
    with page_style():
        figure = new_figure(WIDE, HIGH)
        left, right = figure.subplots(1, 2)
        for place, name in enumerate(names):
            own = sorted((row for row in rows if runtime_name(row) == name), key=lambda row: row["batch"])
            batches = [row["batch"] * (1 + 0.03 * place) for row in own]  # whiskers stand side by side
            look: dict[str, Any] = {"color": SERIES[place % 6], "marker": MARKERS[place % 6], "markersize": 5}
            middle = [row["p50_ms"] for row in own]
            above = [max((row.get("p95_ms") or row["p50_ms"]) - row["p50_ms"], 0) for row in own]
            left.errorbar(batches, middle, yerr=[[0] * len(own), above], capsize=3, label=name, **look)
            right.plot(batches, [row["pictures_per_second"] for row in own], **look)
        for axes, title in ((left, "ms per batch: p50, whisker to p95"), (right, "pictures per second")):
            _both_logarithmic(axes, sorted({row["batch"] for row in rows}), title)
        figure.legend(loc="outside lower center", ncols=3)
        return to_svg(figure, alt)


def runtime_name(row: dict[str, Any]) -> str:
    """Return what a row of benchmark.json timed, in words."""
    if row["runtime"] == "torch":
        return f"torch, {row['provider']}, {row['device'].upper()}"
    variant = "" if row.get("form", FULL) == FULL else f", {row['form']}"
    return f"ONNX Runtime, {row['provider'].removesuffix('ExecutionProvider')}{variant}"


def _both_logarithmic(axes: "Axes", batches: list[int], title: str) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(batches, [str(batch) for batch in batches])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("batch size")
    axes.set_title(title, loc="left")
    light_grid(axes)


def quality_against_latency(points: list[tuple[Dot, float]], x_name: str, y_name: str, alt: str) -> str:
    """Draw scores, which must be numbers, with their intervals over latency in milliseconds; best is the lower left."""
    with page_style():
        figure = new_figure(WIDE, HIGH + 0.4)
        axes = figure.subplots()
        for place, (dot, milliseconds) in enumerate(points):
            low, high = dot.low, dot.high
            if low is not None and high is not None:
                axes.vlines(milliseconds, low, high, color=SERIES[place % 6], linewidth=1.6)
            look: dict[str, Any] = {"color": SERIES[place % 6], "marker": MARKERS[place % 6], "markersize": 8}
            axes.plot([milliseconds], np.array([dot.value]), linewidth=0, label=cut(dot.label), **look)
        axes.set_xlabel(x_name)
        axes.set_ylabel(y_name)
        axes.margins(x=0.15, y=0.2)
        light_grid(axes)
        figure.legend(loc="outside right upper")
        return to_svg(figure, alt)
