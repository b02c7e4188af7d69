"""Which models may be compared: those whose scores have the same recipe, and the verdicts between them."""

from dataclasses import dataclass
from typing import Any

from stages.evaluate.page.content import ModelReport
from stages.evaluate.page.figures import finite
from stages.evaluate.page.measured import flatten
from stages.evaluate.page.numerals import NONE, number, plain, words
from stages.evaluate.page.score_names import ScoreName, by_network
from stages.evaluate.page.section import Row, Table
from stages.metrics.recipe import differences
from stages.metrics.verdict import Score, compare

FIGURES = 3  # of a difference


@dataclass(frozen=True)
class Alike:
    """Models whose scores in one feature network have one recipe."""

    network: str
    recipe: dict[str, Any]
    models: list[ModelReport]

    @property
    def names(self) -> list[ScoreName]:
        """Return the scores that at least one of the models has, in the order of the pages."""
        found = dict.fromkeys(name for model in self.models for name in model.part("scores"))
        return by_network(found).get(self.network, [])


def recipe_of(content: ModelReport, network: str) -> dict[str, Any]:
    """Return the recipe of a model's scores in a feature network, empty where it carries none."""
    return content.recipes.get(network, {})


def group(contents: list[ModelReport]) -> dict[str, list[Alike]]:
    """Return by feature network the groups of models that may be compared, the largest first.

    A model whose scores carry no recipe is compared with none.
    """
    networks = by_network(dict.fromkeys(name for content in contents for name in content.part("scores")))
    return {network: _of_network(contents, network) for network in networks if network}


def _of_network(contents: list[ModelReport], network: str) -> list[Alike]:
    groups: dict[str, Alike] = {}
    for place, content in enumerate(contents):
        if network not in by_network(content.part("scores")):
            continue
        recipe = recipe_of(content, network)
        key = str(recipe.get("hash") or f"none {place}")
        groups.setdefault(key, Alike(network, recipe, [])).models.append(content)
    return sorted(groups.values(), key=lambda one: -len(one.models))


def differing(groups: list[Alike]) -> Table:
    """Return the entries in which the recipes of groups differ, a column for each group."""
    first, *others = (one.recipe for one in groups)
    unlike = dict.fromkeys(name for other in others for name in differences(first, other))
    flat = [flatten(one.recipe) for one in groups]
    rows: list[Row] = [(words(name), *(plain(recipe.get(name)) for recipe in flat)) for name in unlike]
    head = ("recipe", *(", ".join(model.name for model in one.models) for one in groups))
    return Table(head, rows or [("no recipe to tell by", *(NONE for _ in groups))], "In what they differ", text=True)


def verdicts(alike: Alike, name: ScoreName) -> Table | None:
    """Return a table that says of each model (row) whether it is better than each other one (column) in a score.

    None where fewer than two of the models have the score with its standard error.
    """
    scores = {model.name: score for model in alike.models if (score := _score(model, name, alike.recipe))}
    if len(scores) < 2 or name.lower is None:
        return None
    rows = [(row, *(_cell(scores, row, column, name.lower) for column in scores)) for row in scores]
    return Table((f"{name.title}: is \u2026 than \u2026", *scores), rows, verdicts=True)


def _score(content: ModelReport, name: ScoreName, recipe: dict[str, Any]) -> Score | None:
    value: Any = content.part("scores").get(name.name)
    error: Any = (content.part("intervals").get(name.name) or {}).get("standard_error")
    if not finite(value) or not finite(error):
        return None
    return Score(float(value), float(error), recipe)


def _cell(scores: dict[str, Score], row: str, column: str, lower: bool) -> str:
    """Return the verdict and, in a second line, the difference with its interval."""
    if row == column:
        return ""
    found = compare(scores[row], scores[column], lower)
    difference, low, high = (number(value, FIGURES) for value in (found.difference, found.low, found.high))
    return f"{found.verdict}\n{difference} [{low}, {high}]"
