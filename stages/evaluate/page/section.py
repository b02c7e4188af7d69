"""The pieces that a page is laid out from, and how any tree of a report becomes facts and tables."""

from dataclasses import dataclass, field
from typing import Any, Literal

from stages.evaluate.page.images import Clip, Shown
from stages.evaluate.page.numerals import plain, proportion, words

WIDEST = 6  # columns, above which rows and columns change places where that makes a table narrower
ROWS_SHOWN = 60
OF_INTERVAL = {"value", "low", "high", "standard_error", "resamples", "hits", "count", "effective_count"}
Row = tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """Rows of text under a head; the first column names the row, the others are numbers unless `text` is set.

    A table without any text in its head is of names and values. `verdicts` says that the cells begin with one of
    better, worse and not shown, which the page colours.
    """

    head: Row
    rows: list[Row]
    caption: str = ""
    text: bool = False
    verdicts: bool = False


@dataclass(frozen=True)
class Figure:
    """Pictures side by side over one caption, each as large as a thumbnail, half as wide as the page, or as wide.

    A video stands below them.
    """

    pictures: list[Shown]
    caption: str = ""
    size: Literal["small", "half", "full"] = "small"
    clip: Clip | None = None


@dataclass(frozen=True)
class Section:
    """A part of a page under its heading, in the order of the fields; `absent` stands in for all that follows it."""

    title: str
    absent: str = ""
    reading: str = ""
    charts: list[str] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    facts: list[tuple[str, str]] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def anchor(self) -> str:
        """Return the section's name inside the page."""
        return "".join(letter if letter.isalnum() else "-" for letter in self.title.lower())


def facts_and_tables(tree: dict[str, Any], caption: str = "") -> tuple[list[tuple[str, str]], list[Table]]:
    """Return a tree's own values as named facts, and what is nested in it as tables."""
    facts: list[tuple[str, str]] = []
    tables: list[Table] = []
    for key, value in tree.items():
        name = f"{caption}, {words(key)}" if caption else words(key)
        if is_interval(value):
            facts.append((words(key), proportion(value)))
        elif isinstance(value, dict) and value:
            tables += tables_of(value, name)
        elif isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
            tables.append(_of_records(value, name))
        elif not isinstance(value, dict):
            facts.append((words(key), plain(value)))
    return facts, tables


def tables_of(tree: dict[str, Any], caption: str) -> list[Table]:
    """Return the tables of a nested part: one with columns where its values are alike, else one of names and values."""
    values = list(tree.values())
    if all(isinstance(value, dict) and not is_interval(value) for value in values):
        if all(_is_flat(value) for value in values):
            return [_of_columns(tree, caption)]
        return [table for key, value in tree.items() for table in tables_of(value, f"{caption}, {words(key)}")]
    facts, nested = facts_and_tables(tree, caption)
    own = [Table(("", ""), _first([*facts]), _told(caption, len(facts)))] if facts else []
    return [*own, *nested]


def is_interval(value: Any) -> bool:
    """Return whether a value of a report is a number with its interval, such as a share, and nothing beside it."""
    return isinstance(value, dict) and {"low", "high"} <= value.keys() <= OF_INTERVAL


def _gathered(row: dict[str, Any]) -> dict[str, Any]:
    """Return a record whose value and interval are one entry, where it has them among others."""
    if not {"value", "low", "high"} <= row.keys():
        return row
    return {"value": {key: row[key] for key in row if key in OF_INTERVAL}} | {
        key: value for key, value in row.items() if key not in OF_INTERVAL
    }


def _is_flat(value: dict[str, Any]) -> bool:
    return all(not isinstance(one, dict) or is_interval(one) for one in value.values())


def _of_columns(tree: dict[str, dict[str, Any]], caption: str) -> Table:
    records = {key: _gathered(row) for key, row in tree.items()}
    columns = list(dict.fromkeys(key for row in records.values() for key in row))
    if len(columns) > max(WIDEST, len(records)):
        turned = {column: {key: row[column] for key, row in records.items() if column in row} for column in columns}
        return _of_columns(turned, caption)
    rows: list[Row] = [(words(key), *(_cell(row.get(column)) for column in columns)) for key, row in records.items()]
    return Table(("", *map(words, columns)), _first(rows), _told(caption, len(rows)))


def _of_records(records: list[dict[str, Any]], caption: str) -> Table:
    rows = [_gathered(row) for row in records]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    if len(columns) > max(WIDEST, len(records)):
        turned: list[Row] = [(words(column), *(_cell(row.get(column)) for row in rows)) for column in columns]
        return Table(turned[0], turned[1:], caption)
    cells: list[Row] = [tuple(_cell(row.get(column)) for column in columns) for row in rows]
    return Table(tuple(map(words, columns)), _first(cells), _told(caption, len(cells)))


def _first(rows: list[Row]) -> list[Row]:
    return rows[:ROWS_SHOWN]


def _told(caption: str, count: int) -> str:
    return f"{caption} (the first {ROWS_SHOWN} of {count:,})" if count > ROWS_SHOWN else caption


def _cell(value: Any) -> str:
    return proportion(value) if is_interval(value) else plain(value)
