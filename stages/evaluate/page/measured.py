"""What was measured how: the recipes of the scores and where the model comes from."""

import json
from typing import Any

from stages.evaluate.page.content import ModelReport
from stages.evaluate.page.numerals import plain, words
from stages.evaluate.page.section import Section, Table, facts_and_tables


def recipe_section(recipes: dict[str, dict[str, Any]]) -> Section:
    """Return a section with a recipe in each column; `recipes` are by what their column is to be called."""
    title = "What was measured how"
    if not recipes:
        return Section(title, absent="The scores carry no recipe.")
    flat = {name: flatten(recipe) for name, recipe in recipes.items()}
    keys = list(dict.fromkeys(key for recipe in flat.values() for key in recipe))
    ordered = ["hash", *(key for key in keys if key != "hash")] if "hash" in keys else keys
    rows = [(words(key), *(recipe.get(key, "") for recipe in flat.values())) for key in ordered]
    note = "Only scores of equal hashes may be compared; the hash is over all that a score depends on beside the model."
    return Section(title, tables=[Table(("", *flat), rows, text=True)], notes=[note])


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Return a recipe's leaves as text under dotted names."""
    flat: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value if isinstance(value, str) else json.dumps(value, default=str)
    return flat


def origin_section(content: ModelReport) -> Section:
    """Return where the model comes from: its training's record, without what other sections show."""
    title = "Training"
    if not content.record:
        return Section(title, absent="The training's record is not at hand.")
    record = {key: value for key, value in content.record.items() if key not in ("model", "alerts")}
    facts, tables = facts_and_tables(record)
    alerts = [", ".join(f"{words(key)} {plain(value)}" for key, value in one.items()) for one in alerts_of(content)]
    return Section(title, facts=facts, tables=tables, notes=alerts)


def alerts_of(content: ModelReport) -> list[dict[str, Any]]:
    """Return the alerts that the training raised."""
    found = (content.record or {}).get("alerts") or []
    return [one for one in found if isinstance(one, dict)]
