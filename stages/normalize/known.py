"""What earlier versions of the data decided: data/groups.lock.json, kept in Git, so that additions move nothing."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stages.errors import InputError
from stages.storage import read_json

DIGEST_LENGTH = 16  # of the 64 digits of a file's sha256: among 100,000 pictures, two are alike once in 4 billion times
EMPTY: dict[str, Any] = {"classes": [], "groups": {}}


@dataclass(frozen=True)
class Known:
    """Class names in the order of their labels, and the group of every picture by its file's short digest."""

    classes: list[str] = field(default_factory=list)
    groups: dict[str, str] = field(default_factory=dict)

    def ordered(self, present: set[str]) -> list[str]:
        """Return class names, each at its label: known ones keep theirs, new ones follow by name.

        A known class without pictures keeps its place too, unless the data has none of the known classes.
        """
        kept = self.classes if present & set(self.classes) else []
        return kept + sorted(present - set(kept))


def digest_of(sha256: str) -> str:
    """Return the short name of a file's content."""
    return sha256[:DIGEST_LENGTH]


def read_known(lock: Path) -> Known:
    """Read data/groups.lock.json.

    Raises:
        InputError: it is absent, not JSON, or holds something else.
    """
    raw = read_json(lock, 'git checkout it; a new one is `{"classes": [], "groups": {}}`')
    if not isinstance(raw, dict) or set(raw) != set(EMPTY):
        raise InputError(f"{lock} holds no `classes` and `groups`; git checkout it")
    known = Known(raw["classes"], raw["groups"])
    if not isinstance(known.classes, list) or not isinstance(known.groups, dict):
        raise InputError(f"{lock}: classes must be a list and groups a mapping; git checkout it")
    texts = [*known.classes, *known.groups, *known.groups.values()]
    if not all(isinstance(text, str) and text for text in texts) or len(set(known.classes)) < len(known.classes):
        raise InputError(f"{lock}: classes must be names, each once, and groups must map digests to names")
    return known
