"""The workspaces of this repository (Git's worktrees), and what is at work in each."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from pipelines.git import ask_git
from pipelines.live import LOCK as LIVE
from pipelines.sessions import read_owner
from stages.errors import InputError
from stages.process import WORK


def other_workspaces() -> list[Path]:
    """Return this project's folder in all other worktrees of its Git repository; none outside of Git."""
    prefix = ask_git("rev-parse", "--show-prefix")
    if prefix is None:
        return []
    listed = (ask_git("worktree", "list", "--porcelain") or "").splitlines()
    roots = [Path(line.removeprefix("worktree ")) / prefix for line in listed if line.startswith("worktree ")]
    here = Path().resolve()
    return [root for root in roots if (root / ".dvc").is_dir() and root.resolve() != here]


def at_work(root: Path) -> list[str]:
    """Return the stages and commands that other, living processes run in a workspace; a follower only looks."""
    names = []
    for path in sorted((root / WORK / "locks").glob("*.owner")):
        session = read_owner(path)
        if session and path.stem != LIVE and session.process != os.getpid() and session.is_alive:
            names.append(path.stem)
    return names


@contextlib.contextmanager
def held(roots: list[Path]) -> Iterator[None]:
    """Hold the pipeline's lock of other workspaces, so that no run starts there.

    Raises:
        InputError: something is at work in one of them.
    """
    from filelock import FileLock, Timeout

    with contextlib.ExitStack() as stack:
        for root in roots:
            path = root / WORK / "locks" / "pipeline.lock"
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                stack.enter_context(FileLock(path, timeout=0))
            except Timeout:
                raise InputError(f"{root}: pipeline is running there; wait for it") from None
            if names := at_work(root):
                raise InputError(f"{root}: {', '.join(names)} is at work there; wait for it")
        yield
