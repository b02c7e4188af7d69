"""What a model takes and gives, for those who run it without this project, and what changed since a release."""

from typing import Any

from stages.generators.interface import Capabilities
from stages.generators.noise import RECIPE
from stages.generators.onnx_metadata import NEGATIVE, TOKENS

SEEDS = "0 to 2**128 - 1"
COMPARED = ("dtype", "shape", "range")


def contract_of(capabilities: Capabilities, parity: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Return inputs and outputs with shape, type, range and meaning, class names, and how a seed becomes noise.

    `parity` describes the file's graph; `defaults` are values of one picture for all inputs but noise and class.
    """
    inputs = [entry | _about(entry["name"], capabilities) for entry in parity["inputs"]]
    for entry in inputs:
        if entry["name"] in defaults:
            entry["default"] = defaults[entry["name"]]
    layout = "RGB" if capabilities.channels == 3 else "grey"
    meaning = f"{layout} pictures in sRGB; as bytes: clip(rint((x + 1) * 127.5), 0, 255)"
    return {
        "inputs": inputs,
        "outputs": [entry | {"range": [-1, 1], "meaning": meaning} for entry in parity["outputs"]],
        "class_names": list(capabilities.class_names),
        "noise": {"recipe": RECIPE, "latent_shape": list(capabilities.latent_shape), "seeds": SEEDS},
    }


def _about(name: str, capabilities: Capabilities) -> dict[str, Any]:
    """Return range and meaning of an input; a bound of None is open."""
    classless = capabilities.steps is not None  # a model that draws in steps can do without a class
    last = len(capabilities.class_names) - 1
    if name.removeprefix(NEGATIVE) in TOKENS:
        what = "what guidance leads away from" if name.startswith(NEGATIVE) else "the prompt"
        meaning = f"{name.removeprefix(NEGATIVE)} of {what}, by the tokenizer in the file's metadata"
        return {"range": [0, 1 if name.endswith(TOKENS[1]) else None], "meaning": meaning}
    found: dict[str, dict[str, Any]] = {
        "latent": {"range": [None, None], "meaning": "standard normal noise, one row per picture, by `noise.recipe`"},
        "label": {
            "range": [-1 if classless else 0, last],
            "meaning": "position in `class_names`; where none is chosen, the seed modulo their number"
            + ("; -1: no class" if classless else ""),
        },
        "truncation": {
            "range": [0, None],
            "meaning": "less than the default: more typical, less varied pictures",
        },
        "guidance": {"range": [0, None], "meaning": "how strongly the condition is followed; 1: as it was learnt"},
    }
    return found[name]


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return what of the inputs, outputs, class names and noise a user of the old one would notice, one text each."""
    found = [
        *_changed_values("input", old["inputs"], new["inputs"]),
        *_changed_values("output", old["outputs"], new["outputs"]),
    ]
    if old["class_names"] != new["class_names"]:
        found.append(_changed_names(old["class_names"], new["class_names"]))
    if old["noise"]["recipe"] != new["noise"]["recipe"]:
        found.append("seeds become noise by another recipe")
    return found


def _changed_values(kind: str, old: list[dict[str, Any]], new: list[dict[str, Any]]) -> list[str]:
    before, now = ({entry["name"]: entry for entry in entries} for entries in (old, new))
    found = [f"{kind} {name} is gone" for name in before if name not in now]
    found += [f"{kind} {name} is new" for name in now if name not in before]
    for name in (name for name in before if name in now):
        for part in COMPARED:
            was, is_ = before[name][part], now[name][part]
            if was != is_:
                found.append(f"{kind} {name} has {part} {_readable(is_)} instead of {_readable(was)}")
    return found


def _readable(value: Any) -> str:
    if not isinstance(value, list):
        return str(value)
    return f"[{', '.join('open' if part is None else str(part) for part in value)}]"


def _changed_names(old: list[str], new: list[str]) -> str:
    gone, added = [name for name in old if name not in new], [name for name in new if name not in old]
    parts = [f"{kind}: {', '.join(names)}" for kind, names in (("gone", gone), ("new", added)) if names]
    return f"the class names changed ({'; '.join(parts) or 'in order'})"
