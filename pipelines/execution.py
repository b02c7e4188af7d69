"""Runs one stage by `dvc repro --single-item` under supervision and tells how it ended."""

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pipelines.dvc import dvc_command, dvc_environment, explain_busy
from stages.errors import InputError, Interrupted, ResourceError
from stages.failures import translate
from stages.process import NOTES, WORK

DEFECT = 1
KILLED = 137
STAGE_CODE = re.compile(r"exited with (-?\d+)")  # dvc's words; negative: the signal that ended the stage
SAVING_SECONDS = 60.0  # what a stage may take to save when the processes above it were killed
NOTE_SECONDS = 2.0  # from the lock's release to the note
REASON_LENGTH = 400
BACKOFF_SECONDS = (5.0, 15.0, 45.0)
RETRIES = {
    "train": 1,
    "autoencoder": 1,
}  # they resume; any other stage that calls itself retryable lacked something of the network

LineReader = Callable[[str], None]


@dataclass(frozen=True)
class Outcome:
    """How a stage ended: its exit code as the stage itself reports it, why, and whether a repetition may help."""

    stage: str
    code: int
    reason: str
    retryable: bool
    seconds: float


def retries_of(stage: str) -> int:
    """Return how often a stage that failed in a retryable way may be repeated."""
    return RETRIES.get(stage.partition("@")[0], len(BACKOFF_SECONDS))


def repro(stage: str, read_line: LineReader | None = None, force: bool = False) -> Outcome:
    """Bring one stage up to date: run it, take it from dvc's run-cache, or find that it needs nothing.

    Output goes to this process's own, or line by line to `read_line`. DVC turns every failure into 255, so code and
    reason come from the note that the stage leaves.
    """
    before = _note_time(stage)
    started = time.monotonic()
    forced = ["--force"] if force else []
    errors = NOTES / f"{stage}.error"
    errors.unlink(missing_ok=True)
    code = run_supervised(dvc_command("repro", "--single-item", *forced, stage, errors=errors), read_line)
    if code == KILLED:
        _wait_for_end(stage, before)
    note = _read_note(stage) if _note_time(stage) != before else {}
    return _outcome(stage, code, note, errors, time.monotonic() - started)


def repro_with_retries(stage: str, read_line: LineReader | None = None, force: bool = False) -> Outcome:
    """Bring one stage up to date, repeating it with growing pauses where its own note says that this may help."""
    outcome = repro(stage, read_line, force)
    for attempt in range(retries_of(stage)):
        if outcome.code == 0 or not outcome.retryable:
            break
        pause = BACKOFF_SECONDS[attempt]
        (read_line or _print)(f"{stage}: {outcome.reason}; attempt {attempt + 2} in {pause:.0f} s")
        time.sleep(pause)
        outcome = repro(stage, read_line, force)
    return outcome


def _wait_for_end(stage: str, before: int) -> None:
    """Wait until a stage whose supervisor was killed has saved, let go of its lock and left its note."""
    from filelock import FileLock, Timeout

    lock = WORK / "locks" / f"{stage}.lock"
    with contextlib.suppress(Timeout), FileLock(lock, timeout=SAVING_SECONDS):
        pass
    deadline = time.monotonic() + NOTE_SECONDS
    while _note_time(stage) == before and time.monotonic() < deadline:
        time.sleep(0.1)


def _outcome(stage: str, dvc_code: int, note: dict[str, Any], errors: Path, seconds: float) -> Outcome:
    if dvc_code == 0:
        return Outcome(stage, 0, "finished", False, seconds)
    if dvc_code == Interrupted.code:
        return Outcome(stage, Interrupted.code, note.get("reason", "stopped"), True, seconds)
    if note.get("code"):
        return Outcome(stage, note["code"], note["reason"], note["retryable"], seconds)
    reason = _reason_of_dvc(dvc_code, errors)
    found = STAGE_CODE.search(reason)
    stage_code = int(found[1]) if found else 0
    if KILLED in (dvc_code, 128 - stage_code):
        resumes = stage.partition("@")[0] in RETRIES
        return Outcome(stage, ResourceError.code, "was killed (SIGKILL); out of memory?", resumes, seconds)
    if busy := explain_busy(reason):
        return Outcome(stage, InputError.code, busy, False, seconds)
    if exhausted := translate(RuntimeError(reason)):
        return Outcome(stage, exhausted.code, str(exhausted), False, seconds)
    if stage_code > 0:  # it could not leave its note: the disk is full, or not to be written
        return Outcome(stage, stage_code, "its lines above say why", False, seconds)
    return Outcome(stage, DEFECT, reason, False, seconds)


def _reason_of_dvc(code: int, errors: Path) -> str:
    """Return why dvc itself says that it failed: before, after or instead of the stage."""
    told = errors.read_text() if errors.exists() else ""
    line = " ".join(told.split()).removeprefix("ERROR: ")
    return f"dvc: {line[:REASON_LENGTH]}" if line else f"dvc ended with {code}; the lines above say why"


def _read_note(stage: str) -> dict[str, Any]:
    note: dict[str, Any] = json.loads((NOTES / f"{stage}.json").read_text())
    return note


def _note_time(stage: str) -> int:
    path = NOTES / f"{stage}.json"
    return path.stat().st_mtime_ns if path.exists() else 0


def run_supervised(command: list[str], read_line: LineReader | None = None, options: tuple[str, ...] = ()) -> int:
    """Run a command under `pipelines.supervise` and return its exit code; whatever ends this call ends the command.

    `options` are the supervisor's own.
    """
    supervisor = [sys.executable, "-m", "pipelines.supervise", "--parent", str(os.getpid()), *options, "--"]
    process = subprocess.Popen(
        [*supervisor, *command],
        start_new_session=True,
        env=dvc_environment(),
        stdout=subprocess.PIPE if read_line else None,
        stderr=subprocess.STDOUT if read_line else None,
        text=True,
        errors="replace",
    )
    try:
        if read_line and process.stdout:
            _read_lines(process.stdout, read_line)
        code = process.wait()
        return 128 - code if code < 0 else code
    finally:
        _stop(process)


def _read_lines(stream: IO[str], read_line: LineReader) -> None:
    for line in stream:  # text mode makes a progress bar's carriage return a line end, too
        if line.strip():
            read_line(line.rstrip())


def _stop(process: subprocess.Popen) -> None:
    """End a supervisor that still runs and wait for it; a further interruption makes it kill at once."""
    while process.poll() is None:
        process.terminate()
        try:
            process.communicate()  # reads on, so that a full pipe does not keep a training from saving
        except BaseException:  # the first interruption is already on its way up
            continue


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
