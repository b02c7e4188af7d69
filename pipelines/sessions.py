"""The trainings that run in this workspace now, and how those ended that ran before.

Only looks: a probe that took a training's lock for an instant could make one that starts just then fail.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from pipelines.training import PARTS
from stages.errors import Interrupted
from stages.process import NOTES, WORK

LOCKS = WORK / "locks"
CLOCK_SECONDS = 60.0  # a process's start is told against the boot time, which moves when the clock is set
SECOND = 10**9


@dataclass(frozen=True)
class Ending:
    """How a session ended: MLflow's status, the reason where it did not finish, and when (None: not known)."""

    status: str
    reason: str | None
    moment: float | None


SILENT = Ending("KILLED", "killed: the process ended without a word", None)


@dataclass(frozen=True)
class Session:
    """One process that trains a model; `since` is when it took the lock (nanoseconds since 1970)."""

    name: str
    process: int
    since: int

    @property
    def is_alive(self) -> bool:
        """Whether the process still runs, and is not another one that was given its number."""
        import psutil

        try:
            process = psutil.Process(self.process)
            begun = process.create_time() <= self.since / SECOND + CLOCK_SECONDS
            return begun and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False

    @property
    def folder(self) -> Path | None:
        """The folder of its states, None as long as it has not chosen one."""
        parts = [(_modified(path), path) for path in (WORK / "train" / self.name).glob(f"*/{PARTS}")]
        fresh = [(moment, path) for moment, path in parts if moment >= self.since]
        return max(fresh)[1].parent if fresh else None

    def ending(self) -> Ending | None:
        """Return how it ended by its own note, None where it has left none."""
        path = NOTES / f"train@{self.name}.json"
        try:
            moment = _modified(path)
            note = json.loads(path.read_text())
        except (OSError, ValueError):
            return None
        if moment < self.since:
            return None
        status = {0: "FINISHED", Interrupted.code: "KILLED"}.get(note["code"], "FAILED")
        return Ending(status, note["reason"] if note["code"] else None, moment / SECOND)


def running_sessions() -> list[Session]:
    """Return the trainings of this workspace whose process is alive."""
    if not LOCKS.is_dir():
        return []
    found = [read_owner(path) for path in LOCKS.glob("train@*.owner")]
    return [session for session in found if session and session.is_alive]


def read_owner(path: Path) -> Session | None:
    """Return the process that a lock's owner file names, None where the lock was released this moment."""
    try:
        number = re.match(r"\D*(\d+)", path.read_text())
        since = _modified(path)
    except OSError:  # released this moment
        return None
    return Session(path.stem.partition("@")[2], int(number[1]), since) if number else None


def _modified(path: Path) -> int:
    return path.stat().st_mtime_ns
