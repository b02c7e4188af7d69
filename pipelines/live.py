"""Shows running trainings in MLflow while they run: `python -m pipelines.live`, beside a plain `dvc repro`.

Reads what a training has saved and never touches it; ends with Ctrl-C. `pipelines.run` and the flow do the same in a
thread. Only what a training cannot lose any more is logged: rows and grids up to its newest whole state.
"""

import argparse
import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.entry import answer
from pipelines.plan import Step
from pipelines.publish import BusyError, alive_fingerprints, in_a_line, tracking_uri, without_secrets, writing
from pipelines.sessions import SILENT, Ending, Session, running_sessions
from pipelines.training import read_training
from stages.errors import InputError, Interrupted
from stages.process import STOP, stage_lock

if TYPE_CHECKING:
    from pipelines.tracking import Tracker

POLL_SECONDS = 3.0
HEARTBEAT_SECONDS = 60.0
RETRY_SECONDS = 20.0  # after a server did not answer
NOTE_SECONDS = 15.0  # a training's note may come this long after the process that held its lock
END_SECONDS = 8.0  # a run does not wait longer for the last words: one request, or mlflow's import
LIVE_TIMEOUT, LIVE_RETRIES = "5", "0"  # seconds; the next poll is the repetition
LOCK = "live"

Tell = Callable[[str], None]


@dataclass
class Followed:
    """A session that is followed: its states' folder, its run, and what of it is logged."""

    session: Session
    folder: Path | None = None
    run: str | None = None
    stamp: int = 0  # the folder's time when its states were last logged
    beat: float = float("-inf")
    gone: float | None = None  # when its process was first found ended

    @property
    def needs_beat(self) -> bool:
        """Whether its run was last told alive a minute ago."""
        return time.monotonic() - self.beat >= HEARTBEAT_SECONDS

    @property
    def changed(self) -> int:
        """The time of the folder's last change: a state appears by a rename in it."""
        return self.folder.stat().st_mtime_ns if self.folder else 0


class Follower:
    """Brings MLflow up to date with the trainings of this workspace, one `tick` at a time.

    Whatever fails in a tick is told in one line and tried again later; nothing but Interrupted is raised.
    """

    def __init__(self, tell: Tell) -> None:
        self.tell = tell
        self.followed: dict[Session, Followed] = {}
        self.tracker: Tracker | None = None
        self.told: set[str] = set()  # runs that were announced
        self.failing = False
        self.next_try = float("-inf")

    def tick(self, last: bool = False) -> None:
        """Look at the running trainings and log what is new; `last`: what has ended without a note leaves none."""
        try:
            self._look()
            due = [item for item in self.followed.values() if item.folder and self._is_due(item, last)]
            if due and time.monotonic() >= self.next_try and not (last and self.failing):
                with writing(0):
                    for item in due:
                        self._log(item, last)
                self._answered()
        except BusyError:  # such as `pipelines.publish`; the next tick is soon
            return
        except Interrupted:
            raise
        except Exception as error:  # a training is worth more than its picture: nothing may reach it or the run
            self._failed(error)

    @property
    def busy(self) -> bool:
        """Whether a training runs, or one that has ended is still to be logged and MLflow answers."""
        return any(item.gone is None or not self.failing for item in self.followed.values())

    def _look(self) -> None:
        """Find new sessions and their folders, note ended ones; no MLflow, and next to no time."""
        for session in running_sessions():
            self.followed.setdefault(session, Followed(session))
        for item in list(self.followed.values()):
            if item.folder is None or not item.folder.exists():  # it may be deleted while it is followed
                item.folder = item.session.folder
            if item.gone is None and not item.session.is_alive:
                item.gone = time.monotonic()
            if item.gone is not None and item.folder is None:  # it was refused before it began
                del self.followed[item.session]

    def _is_due(self, item: Followed, last: bool) -> bool:
        if item.gone is not None:
            return _ending(item, last) is not None
        return item.changed != item.stamp or item.needs_beat

    def _log(self, item: Followed, last: bool) -> None:
        tracker = self._connect()
        changed = item.changed
        if changed != item.stamp or item.run is None or item.gone is not None:
            self._log_progress(tracker, item)
            item.stamp = changed
        if item.needs_beat and item.gone is None:
            if item.run:
                tracker.beat(item.run)
            item.beat = time.monotonic()
        if item.gone is not None:
            self._log_end(tracker, item, last)

    def _log_progress(self, tracker: "Tracker", item: Followed) -> None:
        assert item.folder
        training = read_training(item.session.name, item.folder)
        item.run = item.run or tracker.begin(training)
        if item.run is None:
            return
        tracker.progress(item.run, training)
        if item.run not in self.told:
            self.told.add(item.run)
            self.tell(f"MLflow: {training.name} is run {item.run} while it trains")

    def _log_end(self, tracker: "Tracker", item: Followed, last: bool) -> None:
        ending = _ending(item, last)
        if ending and item.run:
            reason = without_secrets(ending.reason) if ending.reason else None
            tracker.end(item.run, ending.status, reason, ending.moment)
        if ending:
            del self.followed[item.session]
            self.tracker = None  # what it remembers of a run may change until the next session

    def _connect(self) -> "Tracker":
        """Return the tracker; the first time, end the runs that died without a word."""
        if self.tracker is None:
            from pipelines.tracking import RETRIES, TIMEOUT, Tracker

            tracker = Tracker(tracking_uri(), {TIMEOUT: LIVE_TIMEOUT, RETRIES: LIVE_RETRIES})
            for line in tracker.sweep(alive_fingerprints()):
                self.tell(line)
            self.tracker = tracker
        return self.tracker

    def _answered(self) -> None:
        if self.failing:
            self.tell(f"MLflow at {without_secrets(tracking_uri())} answers again; what it had missed is filled in")
        self.failing = False

    def _failed(self, error: Exception) -> None:
        """Tell the first failure of a row, and forget what is known of the runs: it may have gone through or not."""
        if not self.failing:
            self.tell(
                f"WARNING: not seen live in MLflow at {without_secrets(tracking_uri())}: {in_a_line(error)}; "
                "the training goes on, and what is missing is filled in later"
            )
        self.failing, self.tracker = True, None
        self.next_try = time.monotonic() + RETRY_SECONDS
        for item in self.followed.values():
            item.run, item.stamp = None, 0


def _ending(item: Followed, last: bool) -> Ending | None:
    """Return how an ended session ended, None as long as its note may still come."""
    assert item.gone is not None
    waited = last or time.monotonic() - item.gone >= NOTE_SECONDS
    return item.session.ending() or (SILENT if waited else None)


@contextlib.contextmanager
def followed(steps: Iterable[Step], tell: Tell) -> Iterator[None]:
    """Show the trainings among these steps in MLflow while the block runs; without one of them nothing happens."""
    if not any(step.stage.startswith("train@") for step in steps):
        yield
        return
    stop = threading.Event()
    thread = threading.Thread(target=follow, args=(stop, tell), daemon=True, name="live")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(END_SECONDS)


def follow(stop: threading.Event, tell: Tell) -> None:
    """Follow until asked to stop, unless and as long as another process of this workspace does."""
    follower = Follower(tell)
    while not stop.is_set():
        with contextlib.suppress(InputError, OSError), stage_lock(LOCK):
            while not stop.wait(POLL_SECONDS):
                follower.tick()
            follower.tick(last=True)
        stop.wait(POLL_SECONDS)


def follow_here(once: bool, tell: Tell) -> int:
    """Follow in this thread until interrupted, or, where `once`, until no training runs any more, and return 0.

    Raises:
        InputError: another process of this workspace follows.
    """
    follower = Follower(tell)
    with stage_lock(LOCK):
        with contextlib.suppress(Interrupted):
            follower.tick()
            while not STOP.requested and (not once or follower.busy):  # a library may have swallowed the interruption
                time.sleep(POLL_SECONDS)
                follower.tick()
        if STOP.requested:
            tell("no longer followed; trainings go on, and `python -m pipelines.publish` completes their runs")
    return 0


def main() -> int:
    """Follow from the command line and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.live", description=__doc__)
    parser.add_argument("--once", action="store_true", help="end when no training runs any more")
    arguments = parser.parse_args()
    return answer("live", partial(follow_here, arguments.once, partial(print, flush=True)))


if __name__ == "__main__":
    sys.exit(main())
