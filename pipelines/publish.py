"""Shows stage outputs in MLflow, one run per trained model, as often as you like: `python -m pipelines.publish`.

Runs are built from files, so that a result which DVC took from its cache appears, too; `pipelines.live` logs the same
run while it is being trained.
"""

import argparse
import contextlib
import json
import os
import re
import socket
import sqlite3
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.comparison import bring_up_to_date, page_of, read_note
from pipelines.entry import answer
from pipelines.lifecycle import try_all
from pipelines.results import Results, is_trained, read_results
from pipelines.sessions import running_sessions
from stages.errors import InputError, StageError
from stages.failures import translate
from stages.process import WORK, stage_lock
from stages.progress import progress_bar
from stages.settings import Settings, load_settings
from stages.storage import sha256_bytes, write_json

if TYPE_CHECKING:
    from tqdm import tqdm

    from pipelines.tracking import Tracker

PUBLISHED = WORK / "published"
SQLITE = "sqlite:///"
REASON_LENGTH = 300
LIVE_PATIENCE_SECONDS = 15.0  # the live follower's last request may take so long, and decides what is missing

Tell = Callable[[str], None]


def publish_changed(settings: Settings, tell: Tell) -> list[str]:
    """Publish the selected, trained models that differ from what was published, and return those that were.

    A tracking server that does not answer is told loudly and is no failure: the next call fills in what is missing.

    Raises:
        GateError: an ONNX file is not the one that its parity record describes; all other models are published.
    """
    return _publish([result for result in trained_results(settings) if not is_published(result)], tell)


def publish_all(settings: Settings, tell: Tell) -> list[str]:
    """Publish every selected, trained model whatever was published before; what is there already is not repeated.

    Raises:
        GateError: as `publish_changed`.
    """
    return _publish(trained_results(settings), tell)


def _publish(results: list[Results], tell: Tell) -> list[str]:
    if not results:
        return []
    done: list[str] = []
    failures: list[StageError] = []
    with stage_lock("publish"), progress_bar("publishing", total=len(results), unit="runs") as bar:
        from pipelines.tracking import Tracker, tracking_errors  # takes seconds, which the bar shows

        try:
            with writing(LIVE_PATIENCE_SECONDS):
                tracker = Tracker(tracking_uri())
                for line in tracker.sweep(alive_fingerprints()):
                    tell(line)
                failures = try_all([partial(_publish_one, tracker, result, done, tell, bar) for result in results])
        except tracking_errors() as error:
            if exhausted := translate(error):
                raise exhausted from error
            left = ", ".join(result.name for result in results if result.name not in done)
            tell(f"WARNING: {left} not published, MLflow at {without_secrets(tracking_uri())} says: {in_a_line(error)}")
            tell("WARNING: all results are on disk; `python -m pipelines.publish` fills them in once it answers")
    if failures:
        raise type(failures[0])("; ".join(map(str, failures)))
    return done


def _publish_one(tracker: "Tracker", result: Results, done: list[str], tell: Tell, bar: "tqdm") -> None:
    if result.warning:
        tell(result.warning)
    run_id = tracker.publish(result)
    note_published(result, run_id)
    done.append(result.name)
    bar.update()
    tell(f"MLflow: {result.name} is run {run_id}")


def trained_results(settings: Settings) -> list[Results]:
    """Read the selected models that are trained."""
    return [read_results(name) for name in settings.select if is_trained(name)]


class BusyError(TimeoutError):
    """Another process or thread of this workspace writes into MLflow."""


@contextlib.contextmanager
def writing(patience: float) -> Iterator[None]:
    """Be the only process and thread of this workspace that writes into MLflow, so that no point comes twice.

    Raises:
        BusyError: another one still writes after so many seconds.
    """
    from filelock import FileLock, Timeout

    path = WORK / "locks" / "mlflow.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=patience)
    except Timeout:
        raise BusyError("another process or thread of this workspace still waits for its answer") from None
    try:
        yield
    finally:
        lock.release()


def alive_fingerprints() -> set[str]:
    """Return the fingerprints of the trainings that run in this workspace."""
    return {session.folder.name for session in running_sessions() if session.folder}


def tracking_uri() -> str:
    """Return MLFLOW_TRACKING_URI, or the project's own sqlite file."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}{Path('mlflow.db').resolve().as_posix()}"


def in_a_line(error: Exception) -> str:
    """Return what MLflow says, or why it says nothing, as one line that is fit for a log."""
    first = root_of(error)
    if first is not error and isinstance(first, ConnectionError | TimeoutError | socket.gaierror):
        return f"no answer ({first})"
    return without_secrets((str(error).splitlines() or [type(error).__name__])[0])[:REASON_LENGTH]


def root_of(error: BaseException) -> BaseException:
    """Return the first of the errors that led to this one."""
    while before := error.__cause__ or (None if error.__suppress_context__ else error.__context__):
        error = before
    return error


def without_secrets(text: str) -> str:
    """Return a text whose addresses have lost user, password and query, fit for a log."""
    userinfo = r"://(?:[^/\s:@]*:\S*@|[^/\s]*@)"  # databases take a password with a slash in it
    return re.sub(r"\?\S*", "", re.sub(userinfo, "://", text))


def note_published(result: Results, run_id: str) -> None:
    """Remember what was published where, so that the next call need not ask MLflow, whose import takes seconds."""
    address = sha256_bytes(tracking_uri().encode())  # the address itself may hold a password
    note = {"digest": result.digest, "tracking": address, "run": run_id, "comparison": _comparison_of(result.name)}
    write_json(PUBLISHED / f"{result.name}.json", note)


def _comparison_of(name: str) -> str | None:
    """Return the key of the comparison page that shows a model, None where there is none."""
    return read_note().get("key") if page_of(name) else None


def is_published(result: Results) -> bool:
    """Return whether a model was published here as it is now; a sqlite file must still hold the run."""
    try:
        note: dict[str, Any] = json.loads((PUBLISHED / f"{result.name}.json").read_text())
    except (OSError, ValueError):
        return False
    uri = tracking_uri()
    shown = {"digest": result.digest, "comparison": _comparison_of(result.name)}
    if any(note.get(part) != value for part, value in shown.items()) or note["tracking"] != sha256_bytes(uri.encode()):
        return False
    return not uri.startswith(SQLITE) or sqlite_holds(Path(uri.removeprefix(SQLITE)), note["run"])


def sqlite_holds(database: Path, run_id: str) -> bool:
    """Return whether an MLflow sqlite file holds a run that is not deleted."""
    if not database.is_file():
        return False
    query = "SELECT 1 FROM runs WHERE run_uuid = ? AND lifecycle_stage = 'active'"
    try:
        with contextlib.closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            return connection.execute(query, (run_id,)).fetchone() is not None
    except sqlite3.Error:  # another schema or a damaged file: MLflow itself shall judge
        return False


def main() -> int:
    """Publish all selected, trained models and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.publish", description=__doc__)
    parser.parse_args()
    return answer("publish", _publish_trained)


def _publish_trained() -> int:
    settings = load_settings()
    if not any(is_trained(name) for name in settings.select):
        raise InputError(f"none of {', '.join(settings.select)} is trained; run `dvc repro` first")
    tell = partial(print, flush=True)
    failures = try_all([partial(bring_up_to_date, settings), partial(publish_all, settings, tell)])
    if failures:
        raise failures[0]
    return 0


if __name__ == "__main__":
    sys.exit(main())
