"""One line per part of a report: its own reading where it has one, else what its numbers say."""

from collections.abc import Callable
from typing import Any

from stages.evaluate.page.content import ModelReport
from stages.evaluate.page.numerals import number

NAMED = 8  # classes in a line, at most
Tree = dict[str, Any]


def reading_of(content: ModelReport, part: str) -> str:
    """Return a part of the report in one line, empty where it has none or where the part is absent."""
    tree = content.part(part)
    if content.absent(part):
        return ""
    if "reading" in tree:
        return str(tree["reading"])
    try:
        return COMPUTED[part](tree) if part in COMPUTED else ""
    except (KeyError, TypeError, IndexError):  # a report of another version tells by its tables alone
        return ""


def find(tree: Any, *keys: str) -> Tree:
    """Return the first dictionary within a tree, itself included, that has all of these keys; else an empty one."""
    if not isinstance(tree, dict):
        return {}
    if set(keys) <= tree.keys():
        return tree
    return next((found for value in tree.values() if (found := find(value, *keys))), {})


def percent(share: float) -> str:
    """Return a share in [0, 1] as a percentage."""
    return f"{number(100 * share, 3)} %"


def _memorisation(tree: Tree) -> str:
    first = tree["levels"][0]
    copies, expected = first["copies"], first["expected"]
    told = "more than chance: the model has memorised" if first["memorised"] else "no sign of memorisation"
    return (
        f"{percent(copies['value'])} [{percent(copies['low'])}, {percent(copies['high'])}] of the generated pictures "
        f"are near-copies; of fresh pictures {percent(expected['low'])} to {percent(expected['high'])} would count: "
        f"{told}."
    )


def _probe(tree: Tree) -> str:
    lines = []
    if accuracy := find(tree, "accuracy", "of_real"):
        real = f", of real ones {percent(accuracy['real'])}" if accuracy["real"] is not None else ""
        top = accuracy["accuracy"]["top1"]["value"]
        lines.append(f"{percent(top)} of the generated pictures are taken for the class that was asked for{real}.")
    if histogram := find(tree, "total_variation", "missing"):
        lines.append(
            f"The classes' shares differ by {number(histogram['total_variation'], 3)} in total variation; as many real "
            f"pictures would by up to {number(histogram['floor']['quantile_95'], 3)}."
        )
        missing = histogram["missing"]
        lines.append(f"Missing classes: {', '.join(missing[:NAMED])}." if missing else "No class is missing.")
    return " ".join(lines)


def _variety(tree: Tree) -> str:
    generated, real = tree["generated"], tree["real"]
    return (
        f"Two generated pictures are on average {percent(tree['ratio'])} as far apart as two real ones; the Vendi "
        f"score is {number(generated['vendi'], 3)} against {number(real['vendi'], 3)}, the share of near-duplicates "
        f"{percent(generated['duplicates']['value'])} against {percent(real['duplicates']['value'])}."
    )


def _usefulness(tree: Tree) -> str:
    effect = tree["rare_accuracy"]
    told = {"helps": "help", "hurts": "hurt"}.get(tree["verdict"], "are not shown to help")
    before, after = percent(effect["without"]), percent(effect["with"])
    return f"Generated pictures {told}: accuracy on the rare classes goes from {before} to {after}."


def _spectrum(tree: Tree) -> str:
    worst = tree["worst"]
    told = "a checkerboard pattern is found" if tree["found"] else "no checkerboard pattern is found"
    return f"The highest peak is {number(worst['difference'], 3)} dB over that of real pictures: {told}."


def _latent_space(tree: Tree) -> str:
    path, jumps = find(tree, "length", "error", "stable"), find(tree, "largest", "median", "steps")
    length = f"{number(path['length'])} \u00b1 {number(path['error'], 2)}"
    unsure = "" if path["stable"] else " (unsure: it depends on the step)"
    return (
        f"The path length is {length}{unsure}; the largest jump of an interpolation is {number(jumps['largest'], 3)} "
        f"times its mean step, in half of them it is below {number(jumps['median'], 3)}."
    )


def _sampling(tree: Tree) -> str:
    lines = []
    for name in ("guidance", "steps", "truncation"):
        own = tree.get(f"default_{name}")
        drawn = [row for row in tree.get(name, []) if "fd" in row]
        if drawn:
            best = min(drawn, key=lambda row: row["fd"])
            mine = [row for row in drawn if row[name] == own]
            told = f", at its own {number(own)} it is {number(mine[0]['fd'])}" if mine and best not in mine else ""
            least = f"{number(best['fd'])} at {number(best[name])}"
            lines.append(f"By {name} the least Fr\u00e9chet distance is {least}{told}.")
    if "real" in tree:
        lines.append(f"As many real pictures reach {number(tree['real']['fd'])}.")
    return " ".join(lines)


COMPUTED: dict[str, Callable[[Tree], str]] = {
    "memorisation": _memorisation,
    "probe": _probe,
    "variety": _variety,
    "usefulness": _usefulness,
    "latent_space": _latent_space,
    "spectrum": _spectrum,
    "sampling": _sampling,
}
