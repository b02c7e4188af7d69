"""What retention finds: things that are superseded, what they hold, and how each is dropped."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

MINUTE, HOUR, DAY = 60, 3600, 86400


@dataclass(frozen=True)
class Superseded:
    """One thing that may go: its name, what is told about it, its bytes, and `drop`, which returns a line or nothing.

    What may not be dropped after all, since it changed meanwhile, stays, and the line says so.
    """

    name: str
    detail: str
    bytes: int
    drop: Callable[[], str | None] = field(repr=False)


@dataclass(frozen=True)
class Finding:
    """All superseded things of one kind; `notes` tell what stays though one may expect it to go, and why."""

    kind: str
    items: list[Superseded]
    notes: list[str] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        """The bytes of all its things."""
        return sum(item.bytes for item in self.items)


def files_below(path: Path) -> list[Path]:
    """Return a file itself, or all files below a folder."""
    if path.is_dir() and not path.is_symlink():
        return [entry for entry in path.rglob("*") if entry.is_symlink() or entry.is_file()]
    return [path]


def bytes_of(path: Path) -> int:
    """Return how many bytes a file holds, or all files below a folder."""
    return sum(entry.lstat().st_size for entry in files_below(path))


def newest_change(path: Path) -> float:
    """Return when anything of a file or folder was last written, in seconds since 1970."""
    return max(entry.lstat().st_mtime for entry in [path, *files_below(path)])


def age(moment: float) -> str:
    """Return in words how long ago a moment was."""
    seconds = max(0.0, time.time() - moment)
    for length, unit in ((DAY, "days"), (HOUR, "hours"), (MINUTE, "minutes")):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit} old"
    return f"{seconds:.0f} s old"


def in_bytes(number: int) -> str:
    """Return a number of bytes as people read it, exact below a megabyte."""
    return f"{number / 1e6:,.1f} MB" if number >= 1e6 else f"{number:,} bytes"
