"""The sections of what one score cannot see: variety, usefulness, balance, spectrum."""

from typing import Any

from stages.evaluate.page.content import ModelReport
from stages.evaluate.page.figures import Curve, Dot, Panel, curves, dots_and_whiskers, finite
from stages.evaluate.page.numerals import number, plain, words
from stages.evaluate.page.pictures import without
from stages.evaluate.page.readings import reading_of
from stages.evaluate.page.section import Section, Table, facts_and_tables

NORMAL_95 = 1.96  # standard errors on both sides of a 95 % interval
SIGNS = ("real_sign", "fake_sign", "separation")
SIGN_AXIS, LOGIT_AXIS = "mean sign, \u22121 to 1", "mean logit"


def plain_section(
    content: ModelReport, part: str, title: str, charts: list[str] | None = None, tree: dict[str, Any] | None = None
) -> Section:
    """Return a part of the report, or `tree` in its stead, as charts, facts and tables, under its one-line reading."""
    if absent := content.absent(part):
        return Section(title, absent=absent)
    facts, tables = facts_and_tables(without(content.part(part) if tree is None else tree, "reading"))
    return Section(title, reading=reading_of(content, part), charts=charts or [], facts=facts, tables=tables)


def variety_section(content: ModelReport) -> Section:
    """Return how much the generated pictures differ from one another, beside real ones."""
    tree = without(content.part("variety"), "closest")  # pairs of positions mean nothing to a reader
    sets = {name: tree[name] for name in ("generated", "real") if isinstance(tree.get(name), dict)}
    tree = without(tree, *sets) | ({"generated and real": sets} if sets else {})
    return plain_section(content, "variety", "Variety", tree=tree)


def usefulness_section(content: ModelReport) -> Section:
    """Return what generated pictures do to a classifier's accuracy, with and without them side by side."""
    title, tree = "Usefulness", content.part("usefulness")
    effects = {
        name: one
        for name, one in tree.items()
        if isinstance(one, dict) and {"without", "with", "difference", "seeds_interval"} <= one.keys()
    }
    section = plain_section(content, "usefulness", title, tree=without(tree, *effects))
    if not effects or section.absent:
        return section
    dots = [_effect_dot(name, one) for name, one in effects.items()]
    panel = Panel("accuracy with minus without generated pictures", dots, lower=False)
    head = ("", "without", "with", "difference, over seeds", "over hold-out pictures", "verdict")
    rows = [(words(name), *_effect_cells(one)) for name, one in effects.items()]
    chart = dots_and_whiskers([panel], f"effect of generated pictures of {content.name} on a classifier")
    return Section(
        title, reading=section.reading, charts=[chart], facts=section.facts, tables=[Table(head, rows), *section.tables]
    )


def _effect_dot(name: str, one: dict[str, Any]) -> Dot:
    low, high = one["seeds_interval"]
    return Dot(words(name), one["difference"], low, high, strong=True)


def _effect_cells(one: dict[str, Any]) -> tuple[str, ...]:
    over_seeds, over_pictures = (
        f"[{', '.join(map(number, ends))}]" if ends else plain(None)
        for ends in (one["seeds_interval"], one.get("holdout_interval"))
    )
    told = f"{number(one['difference'])} {over_seeds}"
    return (number(one["without"]), number(one["with"]), told, over_pictures, plain(one.get("verdict")))


def balance_section(content: ModelReport) -> Section:
    """Return what the discriminator said over the training, its outputs drawn over kimg; without one, the errors."""
    tree = content.part("balance")
    series = series_of(tree)
    signs = {name: values for name, values in series.items() if name in SIGNS}
    logits = {name: values for name, values in series.items() if name.endswith("_logit")}
    losses = {name: values for name, values in series.items() if name.startswith(("loss_t", "unexplained", "l1"))}
    charts = [
        curves([Curve(words(name), *values) for name, values in group.items()], "kimg", axis, title)
        for group, axis, title in (
            (signs, SIGN_AXIS, f"signs of the discriminator's outputs of {content.name}"),
            (logits, LOGIT_AXIS, f"the discriminator's outputs of {content.name}"),
            (losses, "error", f"errors in the training of {content.name}"),
        )
        if group
    ]
    changes = {name: one for name, one in tree.items() if isinstance(one, dict) and name != "series"}
    rest = without(tree, "series", "kimg", *changes) | ({"over the last half": changes} if changes else {})
    return plain_section(content, "balance", "Balance", charts, tree=rest)


def series_of(tree: dict[str, Any]) -> dict[str, tuple[list[float], list[float]]]:
    """Return the series of a training by name as kimg and values, without the ticks that have no value."""
    kimg, series = tree.get("kimg"), tree.get("series")
    if not isinstance(kimg, list) or not isinstance(series, dict):
        return {}
    found = {}
    for name, values in series.items():
        if isinstance(values, list):
            pairs = [(at, value) for at, value in zip(kimg, values, strict=False) if finite(at) and finite(value)]
            found[name] = ([at for at, _ in pairs], [value for _, value in pairs])
    return {name: pair for name, pair in found.items() if pair[0]}


def spectrum_section(content: ModelReport) -> Section:
    """Return the power of generated and real pictures by frequency, and the peaks that upsampling leaves behind."""
    tree = content.part("spectrum")
    charts = []
    radial = tree.get("radial")
    if isinstance(radial, dict) and all(isinstance(radial.get(name), list) for name in ("generated", "real")):
        lines = [Curve(name, range(1, len(radial[name])), radial[name][1:]) for name in ("generated", "real")]
        charts.append(
            curves(lines, "cycles per picture", "mean power, dB", f"spectra of {content.name} and of real pictures")
        )
    dots = [dot for dot in map(_peak_dot, tree.get("peaks") or []) if dot]
    if dots:
        panel = Panel("peak over that of real pictures, dB", dots, lower=True)
        charts.append(dots_and_whiskers([panel], f"checkerboard peaks of {content.name}"))
    return plain_section(content, "spectrum", "Spectrum", charts, tree=without(tree, "radial", "worst"))


def _peak_dot(peak: Any) -> Dot | None:
    if not isinstance(peak, dict) or not finite(peak.get("difference")):
        return None
    half = NORMAL_95 * peak.get("error", 0.0)
    periods = [f"{axis} {number(period)} px" for axis in "yx" if (period := peak.get(f"period_{axis}"))]
    value = peak["difference"]
    return Dot(", ".join(periods), value, value - half, value + half, strong=bool(peak.get("found")))
