"""The scores of one model in each feature network, beside floor, training split and baselines."""

from typing import Any

from stages.evaluate.page.content import ModelReport
from stages.evaluate.page.figures import Dot, Panel, dots_and_whiskers, finite
from stages.evaluate.page.numerals import NONE, number, with_interval, words
from stages.evaluate.page.score_names import DEVIATIONS, ScoreName, by_network
from stages.evaluate.page.section import Section, Table

FLOOR, REFERENCE = "floor (real pictures)", "vs the training split"
DEVIATION_OF = {kind: deviation for deviation, kind in DEVIATIONS.items() if deviation.endswith("_std")}
ABOUT = (
    "Filled: this model, its whisker the 95 % interval; shaded: differences too small for this set-up to tell apart. "
    "The floor is what real training pictures score, so what a perfect model would."
)


def score_sections(content: ModelReport) -> list[Section]:
    """Return a section per feature network, or one that says that nothing was scored."""
    networks = by_network(content.part("scores"))
    if not networks:
        return [Section("Scores", absent="No score was computed.")]
    return [_section(content, network, names) for network, names in networks.items()]


def title_of(network: str) -> str:
    """Return the heading of a feature network's scores."""
    return f"Scores in {network} features" if network else "Other scores"


def _section(content: ModelReport, network: str, names: list[ScoreName]) -> Section:
    own = {one.name for one in names}
    roles = {role: found for role, found in roles_of(content).items() if own & found.keys()}
    panels = [panel for panel in (_panel(content, one, roles) for one in names) if panel]
    title = title_of(network)
    charts = [dots_and_whiskers(panels, f"{title} of {content.name}, beside floor and baselines")] if panels else []
    head = ("score", content.name, "better", *roles, "smallest difference shown")
    rows = [_row(content, one, roles) for one in names]
    notes = [ABOUT] if charts else []
    if content.part("train_reference"):
        notes.append("The training split is the field's usual reference; every other column is against the hold-out.")
    return Section(title, charts=charts, tables=[Table(head, rows)], notes=notes)


def roles_of(content: ModelReport) -> dict[str, dict[str, Any]]:
    """Return what the model's scores stand beside, by its words, without what was not measured."""
    roles = {FLOOR: content.part("floor"), REFERENCE: content.part("train_reference")}
    roles |= {words(role): found for role, found in content.part("baselines").items()}
    return {role: found for role, found in roles.items() if found}


def dot_of(content: ModelReport, name: str, label: str, strong: bool) -> Dot:
    """Return a model's score as a dot of a chart, with its interval where that was measured."""
    interval = content.part("intervals").get(name) or {}
    low, high = (interval.get(end) if finite(interval.get(end)) else None for end in ("low", "high"))
    return Dot(label, content.part("scores")[name], low, high, strong)


def _panel(content: ModelReport, one: ScoreName, roles: dict[str, dict[str, Any]]) -> Panel | None:
    if not finite(content.part("scores")[one.name]):
        return None
    dots = [dot_of(content, one.name, content.name, strong=True)]
    beside = {role: found.get(one.name) for role, found in roles.items()}
    dots += [Dot(role, value if finite(value) else None) for role, value in beside.items()]
    band = content.part("smallest_difference").get(one.name)
    return Panel(one.title, dots, one.lower, band if finite(band) else None)


def cell_of(content: ModelReport, one: ScoreName) -> str:
    """Return a score with its interval, or with the deviation over its subsets where it has none."""
    scores, interval = content.part("scores"), content.part("intervals").get(one.name)
    text = with_interval(scores.get(one.name), interval)
    deviation = DEVIATION_OF.get(one.kind)
    if interval or deviation is None:
        return text
    spread = scores.get(one.name.replace(one.kind, deviation, 1))
    return text if spread is None else f"{text} ± {number(spread)}"


def _row(content: ModelReport, one: ScoreName, roles: dict[str, dict[str, Any]]) -> tuple[str, ...]:
    better = {True: "lower", False: "higher", None: NONE}[one.lower]
    beside = [number(found.get(one.name)) for found in roles.values()]
    return (
        one.title,
        cell_of(content, one),
        better,
        *beside,
        number(content.part("smallest_difference").get(one.name)),
    )
