"""Which version a release gets: SemVer, where a changed input or output raises MAJOR."""

import re
from pathlib import Path
from typing import NamedTuple

from stages.errors import InputError

NUMBER = r"(0|[1-9]\d*)"
PATTERN = re.compile(rf"{NUMBER}\.{NUMBER}\.{NUMBER}", re.ASCII)


class Version(NamedTuple):
    """MAJOR.MINOR.PATCH as semver.org defines them; versions compare by number."""

    major: int
    minor: int
    patch: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"


FIRST = Version(1, 0, 0)


def parse(text: str) -> Version | None:
    """Return the version that a text is, None for any other text."""
    found = PATTERN.fullmatch(text)
    return Version(*map(int, found.groups())) if found else None


def released(folder: Path) -> list[Version]:
    """Return the versions that lie in a model's folder of releases, the oldest first."""
    names = [path.name for path in folder.glob("*") if path.is_dir()]
    return sorted(version for name in names if (version := parse(name)))


def next_free(last: Version | None, changes: list[str]) -> Version:
    """Return the version after the last one: `changes` are those of its inputs and outputs."""
    if last is None:
        return FIRST
    return Version(last.major + 1, 0, 0) if changes else Version(last.major, last.minor + 1, 0)


def choose(wanted: str | None, last: Version | None, changes: list[str]) -> Version:
    """Return the version of a new release; `last` is the highest that there is, `changes` what differs from it.

    Raises:
        InputError: the wanted one is no SemVer, not above the last, or keeps MAJOR though inputs or outputs changed.
    """
    free = next_free(last, changes)
    if wanted is None:
        return free
    version = parse(wanted)
    if version is None:
        raise InputError(f"--version is {wanted}; expected MAJOR.MINOR.PATCH such as {free}")
    if last and version == last:
        raise InputError(f"--version {version} exists, and a release is never overwritten; the next free one is {free}")
    if last and version < last:
        raise InputError(f"--version {version} is below {last}, which exists; the next free one is {free}")
    if last and changes and version.major == last.major:
        raise InputError(
            f"--version {version} keeps MAJOR of {last}, but {'; '.join(changes)}: what runs {last} could not run "
            f"this; expected {free}"
        )
    return version
