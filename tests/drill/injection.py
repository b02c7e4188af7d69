"""Ends a forked worker at its n-th write or step, as a lost machine does: no handler runs, nothing is flushed."""

import os
import random
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

CRASHED = 137
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC
# what CPython itself reports before it changes a file; `open` is looked at further, since it also reads
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink", "shutil.rmtree"}


class Points:
    """Counts the points of one worker and ends it at number `fatal` (0: never).

    A point is whatever changes a file below `folder`, each fsync, and each part of a training step. Where `torn`, the
    file whose fsync is fatal loses a random part of its end first, as after a power cut.
    """

    def __init__(self, folder: Path, fatal: int, torn: bool, seed: int) -> None:
        self.folder = str(folder.resolve())
        self.fatal, self.torn = fatal, torn
        self.random = random.Random(seed)
        self.count = 0
        self.names: list[str] = []

    def reach(self, name: str, path: Path | None = None) -> None:
        """Count a point, and end the process if it is the fatal one."""
        self.count += 1
        self.names.append(name)
        if self.count != self.fatal:
            return
        if self.torn and path is not None and path.is_file():
            os.truncate(path, self.random.randrange(path.stat().st_size + 1))
        os._exit(CRASHED)

    def watch_files(self) -> None:
        """Count every change of a file from here on, for the rest of this process."""
        sys.addaudithook(self._hear)
        fsync = os.fsync

        def synced(descriptor: int) -> None:
            path = Path(f"/proc/self/fd/{descriptor}").readlink()
            if str(path).startswith(self.folder):
                self.reach(f"fsync {shape_of(path)}", path)
            fsync(descriptor)

        os.fsync = synced  # type: ignore[assignment]

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.count == self.fatal > 0:  # the end has begun
            return
        if event in CHANGES or (event == "open" and self._writes(arguments)):
            target = arguments[0]
            if isinstance(target, str | os.PathLike) and self._is_ours(target):
                self.reach(f"{event} {shape_of(Path(target))}")

    def _writes(self, arguments: tuple[Any, ...]) -> bool:
        return isinstance(arguments[2], int) and bool(arguments[2] & WRITING)

    def _is_ours(self, target: Any) -> bool:
        return os.path.abspath(os.fsdecode(target)).startswith(self.folder)  # noqa: PTH100 - resolve() itself is heard

    def before(self, owner: Any, name: str) -> None:
        """Make every call of `owner.name` a point, before it does anything."""

        def call_after(call: Callable, *arguments: Any, **keywords: Any) -> Any:
            self.reach(name)
            return call(*arguments, **keywords)

        self._wrap(owner, name, call_after)

    def around_file(self, owner: Any, name: str, path_of: Callable[..., Path]) -> None:
        """Make every call of a writer that CPython does not see two points: before it, and after it, with its file."""

        def write(call: Callable, *arguments: Any, **keywords: Any) -> Any:
            path = path_of(*arguments, **keywords)
            self.reach(f"{name} {shape_of(path)}")
            done = call(*arguments, **keywords)
            self.reach(f"{name} wrote {shape_of(path)}", path)
            return done

        self._wrap(owner, name, write)

    def _wrap(self, owner: Any, name: str, around: Callable) -> None:
        call = getattr(owner, name)
        setattr(owner, name, lambda *arguments, **keywords: around(call, *arguments, **keywords))


def shape_of(path: Path) -> str:
    """Return a path's last two parts without what is its own: what kind of file it is."""
    return re.sub(r"\d+", "n", re.sub(r"\b[0-9a-f]{16}\b", "FINGERPRINT", "/".join(path.parts[-2:])))
