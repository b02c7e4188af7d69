"""The sections about classes: scores within each class, and which classes are drawn how often."""

from typing import Any

from stages.evaluate.page.content import ModelReport
from stages.evaluate.page.figures import Dot, Panel, bars, dots_and_whiskers, finite
from stages.evaluate.page.numerals import words
from stages.evaluate.page.parts import plain_section
from stages.evaluate.page.readings import find
from stages.evaluate.page.score_names import KINDS
from stages.evaluate.page.section import Section, tables_of

CLASSES_DRAWN = 40
COUNTS = "counts"
COLUMNS = (*KINDS, "accuracy", COUNTS)  # what a report may have by class
TITLES = {"accuracy": "accuracy", COUNTS: "generated, real pictures"}
NOTE = "With few pictures distances are biased upwards, each class by its own number: compare a class between models."


def per_class_section(content: ModelReport) -> Section:
    """Return the scores within each class, a row per class, as charts and one table."""
    title = "Per class"
    columns, rest = split_columns(content.part("per_class"))
    section = plain_section(content, "per_class", title, tree=rest)
    if section.absent or not columns:
        return section
    names = list(dict.fromkeys(name for column in columns.values() for name in column))
    panels = [panel for kind, column in columns.items() if (panel := _panel(kind, column, names[:CLASSES_DRAWN]))]
    charts = [dots_and_whiskers(panels, f"scores of {content.name} within each class")] if panels else []
    rows = {name: {_title(kind): column.get(name) for kind, column in columns.items()} for name in names}
    tables = [*tables_of(rows, "scores within each class"), *section.tables]
    notes = [NOTE] if "fd" in columns else []
    return Section(title, reading=section.reading, charts=charts, facts=section.facts, tables=tables, notes=notes)


def split_columns(tree: dict[str, Any]) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Return what a part has by class, under the names of the kinds, and the part without it."""
    columns: dict[str, dict[str, Any]] = {}
    rest: dict[str, Any] = {}
    for key, value in tree.items():
        if key in COLUMNS and isinstance(value, dict):
            columns[key] = value
        elif isinstance(value, dict):
            inner, left = split_columns(value)
            columns |= inner
            rest |= {key: left} if left else {}
        else:
            rest[key] = value
    return columns, rest


def _title(kind: str) -> str:
    return KINDS[kind].title if kind in KINDS else TITLES[kind]


def _panel(kind: str, column: dict[str, Any], names: list[str]) -> Panel | None:
    if kind == COUNTS:
        return None
    dots = [_dot(words(name), column.get(name)) for name in names]
    lower = KINDS[kind].lower if kind in KINDS else False
    return Panel(_title(kind), dots, lower) if any(dot.value is not None for dot in dots) else None


def _dot(label: str, found: Any) -> Dot:
    """Return a number or a share with its interval as a dot."""
    if isinstance(found, dict):
        value, low, high = (found.get(key) if finite(found.get(key)) else None for key in ("value", "low", "high"))
        return Dot(label, value, low, high, strong=True)
    return Dot(label, found if finite(found) else None, strong=True)


def class_section(content: ModelReport) -> Section:
    """Return what a classifier says of the generated pictures, with the shares of the classes drawn as bars."""
    histogram = find(content.part("probe"), "total_variation", "per_class")
    rows = histogram.get("per_class")
    shares = {
        name: (found["value"], found["real"])
        for name, found in (rows.items() if isinstance(rows, dict) else ())
        if isinstance(found, dict) and finite(found.get("value")) and finite(found.get("real"))
    }
    charts = []
    if shares:
        largest = sorted(shares, key=lambda name: -max(shares[name]))[:CLASSES_DRAWN]
        groups = {kind: [shares[name][place] for name in largest] for place, kind in enumerate(("generated", "real"))}
        charts = [bars([words(name) for name in largest], groups, "share of pictures", f"classes of {content.name}")]
    return plain_section(content, "probe", "Classes that are drawn", charts)
