"""What a score depends on beside the pictures' maker, its hash, and the refusal to compare unlike ones."""

from collections.abc import Iterator, Mapping
from typing import Any

from stages.errors import InputError
from stages.storage import sha256_json

BESIDE = frozenset({"hash", "beside"})  # the hash itself, and notes on which the value does not depend
ABSENT = "absent"


class Recipe(dict[str, Any]):
    """A recipe: nested plain values by name. What lies under `beside` is noted, but neither hashed nor compared."""

    @property
    def hash(self) -> str:
        """Return the sha256 of all that is compared."""
        return hash_of(self)

    def sealed(self) -> dict[str, Any]:
        """Return plain values with the recipe's hash among them, as scores.json holds them."""
        return {**self, "hash": self.hash}


def hash_of(recipe: Mapping[str, Any]) -> str:
    """Return the sha256 of a recipe's canonical JSON, without its own `hash` and what lies under `beside`."""
    return sha256_json({name: value for name, value in recipe.items() if name not in BESIDE})


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return both values of each entry that differs, by its dotted name in order; `absent` where one lacks it."""
    one, other = dict(_flat(first)), dict(_flat(second))
    pairs = {name: (one.get(name, ABSENT), other.get(name, ABSENT)) for name in sorted(one.keys() | other.keys())}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def require_alike(first: Mapping[str, Any], second: Mapping[str, Any], what: str) -> None:
    """Raise InputError, naming each difference with both values, unless two recipes are alike."""
    if found := differences(first, second):
        named = "; ".join(f"{name} is {one} and {other}" for name, (one, other) in found.items())
        raise InputError(f"{what} cannot be compared: {named}; score both with the same recipe")


def _flat(recipe: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in recipe.items():
        if not prefix and name in BESIDE:
            continue
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", list(value) if isinstance(value, tuple) else value
