"""Latency and throughput against batch size."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.generators.onnx_metadata import FULL

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#1f77b4", "#d95f02", "#2a9d4b", "#7b3fa0", "#666666")
MARKERS = "osD^v"
SPREAD = 0.03  # whiskers of runtimes at the same batch stand side by side


def plot(rows: list[dict[str, Any]], title: str, path: Path) -> None:
    """Draw p50 with a whisker to p95, and pictures per second, both logarithmic, as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.8), dpi=120, layout="constrained")
    latency, throughput = figure.subplots(1, 2)
    for number, (name, series) in enumerate(by_contestant(rows)):
        style: dict[str, Any] = {"color": COLOURS[number % 5], "marker": MARKERS[number % 5], "label": name}
        draw_latency(latency, series, style, 1 + SPREAD * number)
        throughput.plot(
            [row["batch"] for row in series], [row["pictures_per_second"] for row in series], markersize=6, **style
        )
    finish(latency, rows, "latency of a batch [ms]", "p50, whisker to p95 (lower is better)")
    finish(throughput, rows, "pictures per second", "throughput (higher is better)")
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, format="png")


def by_contestant(rows: list[dict[str, Any]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield each runtime's label and its rows in order of batch size."""
    names = ("runtime", "provider", "device", "form")
    for key in dict.fromkeys(tuple(row[name] for name in names) for row in rows):
        series = [row for row in rows if tuple(row[name] for name in names) == key]
        yield label(*key), sorted(series, key=lambda row: row["batch"])


def label(runtime: str, provider: str, device: str, form: str) -> str:
    """Return a legend's entry."""
    if runtime == "torch":
        return f"torch, {provider}, {device.upper()}"
    variant = "" if form == FULL else f", {form}"
    return f"ONNX Runtime, {provider.removesuffix('ExecutionProvider')}{variant}"


def draw_latency(axes: "Axes", series: list[dict[str, Any]], style: dict[str, Any], shift: float) -> None:
    """Draw one runtime's p50 and, where there were runs enough for it, the whisker to p95."""
    batches = [row["batch"] * shift for row in series]
    middle = [row["p50_ms"] for row in series]
    above = [(row["p95_ms"] or row["p50_ms"]) - row["p50_ms"] for row in series]
    axes.errorbar(batches, middle, yerr=[[0] * len(series), above], capsize=4, markersize=6, **style)


def finish(axes: "Axes", rows: list[dict[str, Any]], unit: str, title: str) -> None:
    """Set scales, ticks with plain numbers at the measured batches, labels and legend."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    batches = sorted({row["batch"] for row in rows})
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(batches, [str(batch) for batch in batches])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("batch size")
    axes.set_ylabel(unit)
    axes.set_title(title, fontsize=10)
    axes.grid(True, which="major", alpha=0.35)
    axes.legend(fontsize=9)
