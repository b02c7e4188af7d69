"""The section of other ways to sample: guidance, steps, truncation, classes and prompts for the same noise."""

from typing import Any

import numpy as np

from stages.evaluate.page.content import ModelReport
from stages.evaluate.page.images import contact_sheet
from stages.evaluate.page.numerals import number, plain
from stages.evaluate.page.pictures import without
from stages.evaluate.page.readings import reading_of
from stages.evaluate.page.section import Figure, Section, facts_and_tables

PART, TITLE = "sampling", "Other ways to sample"
PIXELS = 62_000  # of one sheet: each adds at most 250 kB to a page
READINGS = {
    "guidance": "Each row is one seed and one condition, guidance grows to the right: pictures should come to show the "
    "condition more clearly, until colours burn out and all look alike.",
    "steps": "Each row is one seed, the sampler's steps grow to the right: where neighbours no longer differ, more "
    "steps are wasted.",
    "truncation": "Each row is one seed, and one class where there are any. The last column is without truncation; to "
    "the left pictures come nearer to their mean: fewer faults are paid for with less variety.",
    "classes": "Each row is one seed's noise, each column a class: what stays along a row is the noise's, what changes "
    "is the class's.",
    "prompts": "Each row is one seed's noise, each column a prompt: what stays along a row is the noise's, what "
    "changes is the prompt's.",
}


def sampling_sections(content: ModelReport) -> list[Section]:
    """Return the section of a model that can be sampled in several ways, none for others."""
    if not content.sheets and PART not in content.report:
        return []
    if (absent := content.absent(PART)) and not content.sheets:
        return [Section(TITLE, absent=absent)]
    part = content.part(PART)
    facts, tables = ([], []) if absent else facts_and_tables(without(part, "classes", "prompts"))
    figures = [figure for name, grid in content.sheets.items() if (figure := _sheet(name, grid, content))]
    return [Section(TITLE, reading=reading_of(content, PART), figures=figures, facts=facts, tables=tables)]


def _sheet(name: str, grid: np.ndarray, content: ModelReport) -> Figure | None:
    if grid.ndim != 5 or not grid.size:
        return None
    rows, columns = grid.shape[:2]
    alt = f"{rows} seeds of {content.name} by {columns} {name}"
    shown = contact_sheet(grid.reshape(rows * columns, *grid.shape[2:]), alt, PIXELS, columns=columns)
    told = ", ".join(_columns(name, content.part(PART).get(name)))
    caption = f"{READINGS.get(name, '')} From left to right: {told}." if told else READINGS.get(name, "")
    return Figure([shown] if shown else [], caption, size="full")


def _columns(name: str, found: Any) -> list[str]:
    """Return what the columns of a sheet are, as the report's part of its name tells; those without pictures not."""
    if not isinstance(found, list):
        return []
    drawn = [one for one in found if not (isinstance(one, dict) and "absent" in one)]
    return [number(one.get(name)) if isinstance(one, dict) else plain(one) for one in drawn]
