"""Two results side by side: which scores of the first are better, worse, or cannot be told apart."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from stages.errors import InputError
from stages.evaluate.plain.folder_pictures import shown
from stages.evaluate.table import aligned, interval_text, is_lower_better
from stages.metrics.recipe import differences, require_alike
from stages.storage import read_json

PARTS = ("scores", "intervals", "recipes")
REMEDY = "expected a file that `python -m stages.evaluate --json FILE` or a model's evaluation wrote"


def read_result(path: Path) -> dict[str, Any]:
    """Read a result of this command, or a model's scores.json.

    Raises:
        InputError: the file is absent or holds something else.
    """
    found = read_json(path, REMEDY)
    if not isinstance(found, dict) or not all(isinstance(found.get(part), dict) for part in PARTS):
        raise InputError(f"{shown(path)} holds no {', '.join(PARTS)}; {REMEDY}")
    return found


def compare_results(first: dict[str, Any], second: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the verdict on the first result for every score with an interval that both have, by the score's name.

    Raises:
        InputError: all their recipes differ (each difference is named), or there is nothing to compare. Scores whose
            recipes alone differ are left out: see `refusals`.
    """
    pairs = {name: (_of(first, name), _of(second, name)) for name in first["intervals"] if name in second["intervals"]}
    if not pairs:
        raise InputError(f"the two results share no score with an interval; {REMEDY}")
    alike = {name: pair for name, pair in pairs.items() if not differences(pair[0]["recipe"], pair[1]["recipe"])}
    for name, (one, other) in pairs.items() if not alike else ():
        require_alike(one["recipe"], other["recipe"], name)
    from stages.metrics.verdict import Score, compare  # it imports torch, for which no refusal should wait

    return {
        name: compare(Score(**one), Score(**other), is_lower_better(name)).to_json()
        for name, (one, other) in alike.items()
    }


def refusals(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """Return why the scores of some feature networks are not compared: their recipes differ, each difference named."""
    shared = [label for label in first["recipes"] if label in second["recipes"]]
    found = []
    for label in shared:
        try:
            require_alike(first["recipes"][label], second["recipes"][label], f"scores in {label} features")
        except InputError as error:
            found.append(str(error))
    return found


def verdict_table(first: dict[str, Any], second: dict[str, Any], verdicts: dict[str, dict[str, Any]]) -> str:
    """Return both values, their difference with its 95 % interval and what is shown, as aligned lines."""
    rows = [("", "first", "second", "difference", "95 % interval", "the first is")]
    for name, found in verdicts.items():
        values = f"{first['scores'][name]:.6g}", f"{second['scores'][name]:.6g}"
        rows.append((name, *values, f"{found['difference']:+.4g}", interval_text(found), found["verdict"]))
    return "\n".join(aligned(rows))


def label_of(name: str, labels: Iterable[str]) -> str:
    """Return the feature network of a score's name, such as `kid_inception` or `fid`.

    Raises:
        InputError: none of the labels is in the name.
    """
    stem = name.removesuffix("_inf")
    fitting = [label for label in labels if stem.endswith(f"_{label}") or (stem == "fid" and label == "inception")]
    if not fitting:
        raise InputError(f"{name} is of no feature network that has a recipe ({', '.join(labels)}); {REMEDY}")
    return max(fitting, key=len)


def _of(result: dict[str, Any], name: str) -> dict[str, Any]:
    try:
        error = float(result["intervals"][name]["standard_error"])
        recipe = dict(result["recipes"][label_of(name, result["recipes"])])
        return {"value": float(result["scores"][name]), "standard_error": error, "recipe": recipe}
    except (KeyError, TypeError, ValueError) as problem:
        raise InputError(f"a result's entries for {shown(name)} are damaged ({problem!r}); {REMEDY}") from problem
