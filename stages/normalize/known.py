"""What earlier versions of the data decided: data/groups.lock.json, kept in Git, so that additions move nothing."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stages.errors import InputError
from stages.storage import read_json

DIGEST_LENGTH = 16  # of the 64 digits of a file's sha256: among 100,000 pictures, two are alike once in 4 billion times
EMPTY: dict[str, Any] = {"classes": {}, "groups": {}}
HINT = 'git checkout it, or keep the groups of both sides of a merge; a new one is `{"classes": {}, "groups": {}}`'


@dataclass(frozen=True)
class Known:
    """By kind of source, class names in the order of their labels; by short digest of a file, its picture's group."""

    classes: dict[str, list[str]] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)

    def ordered(self, source: str, present: set[str]) -> list[str]:
        """Return a source's class names, each at its label: known ones keep theirs, new ones follow by name.

        A known class without pictures keeps its place too, unless the data has none of the known classes.
        """
        before = self.classes.get(source, [])
        kept = before if present & set(before) else []
        return kept + sorted(present - set(kept))


def digest_of(sha256: str) -> str:
    """Return the short name of a file's content."""
    return sha256[:DIGEST_LENGTH]


def read_known(lock: Path) -> Known:
    """Read data/groups.lock.json.

    Raises:
        InputError: it is absent, not JSON, or holds something else.
    """
    raw = read_json(lock, HINT)
    if not isinstance(raw, dict) or set(raw) != set(EMPTY):
        raise InputError(f"{lock} holds no `classes` and `groups`; git checkout it")
    known = Known(raw["classes"], raw["groups"])
    if not isinstance(known.classes, dict) or not isinstance(known.groups, dict):
        raise InputError(f"{lock}: classes and groups must be mappings; git checkout it")
    if not all(isinstance(names, list) for names in known.classes.values()):
        raise InputError(f"{lock}: classes must map a source to a list of names; git checkout it")
    texts = [*(name for names in known.classes.values() for name in names), *known.groups, *known.groups.values()]
    repeated = any(len(set(map(str, names))) < len(names) for names in known.classes.values())
    if repeated or not all(isinstance(text, str) and text for text in texts):
        raise InputError(f"{lock}: classes must be names, each once, and groups must map digests to names")
    return known
