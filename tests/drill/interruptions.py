"""Interrupts the pipeline in every way, goes on, and compares: `python -m tests.drill.interruptions [--count 30]`.

Each trial starts a front door in a copy of one prepared project, ends one of its processes (or fills the disk) at a
random moment of the training or after it, waits until nothing of it runs, and gives the same command again. Weights,
samples, curve and MLflow's points (`--whole`: ONNX file and scores, too) must then equal those of an undisturbed run.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from pipelines.supervise import signal_process
from tests.drill.outcome import Outcome
from tests.drill.project import DISK, MODEL, Project, default_project
from tests.lifecycle.project import processes_of, role_of

KINDS = ("SIGKILL", "SIGTERM", "SIGINT", DISK)
DOORS = ("run", "dvc")
WHOLE_DOORS = ("run", "dvc", "flow")  # a flow brings up to date whatever is stale
GONE_SECONDS = 90.0  # the grace of the supervisor and a little more
START_SECONDS = 240.0
FIRST_WRITES, LAST_WRITES = 3, 60  # of the training's own: states, grids, results


@dataclass
class Trial:
    """One interruption and what came of it."""

    number: int
    door: str
    kind: str
    victim: str = ""
    at: str = ""
    first_code: int | None = None
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Undisturbed:
    """What all trials are compared with, and how long it took from the training's start to the end."""

    outcome: Outcome
    seconds: dict[str, float]


def run_undisturbed(project: Project, doors: set[str]) -> Undisturbed:
    """Run each front door to its end, and make sure that they agree."""
    outcomes, seconds = {}, {}
    for door in sorted(doors):
        copy = project.copy()
        process = copy.start(door)
        wait_for_training(copy, process)
        started = time.monotonic()
        if process.wait() or copy.publish(door):
            raise RuntimeError(f"the undisturbed {door} failed:\n{copy.log.read_text()[-3000:]}")
        seconds[door] = time.monotonic() - started
        outcomes[door] = Outcome.read(copy.folder)
        copy.remove()
    first = next(iter(outcomes.values()))
    for door, outcome in outcomes.items():
        if different := outcome.differences(first):
            raise RuntimeError(f"undisturbed, {door} gives other results: {', '.join(different)}")
    return Undisturbed(first, seconds)


def wait_for_training(project: Project, process: subprocess.Popen) -> None:
    """Wait until the training holds its lock, or the front door has ended."""
    owner = project.folder / f".work/locks/train@{MODEL}.owner"
    wait_until(lambda: owner.exists() or process.poll() is not None, START_SECONDS)


def wait_until(fulfilled: Callable[[], bool], seconds: float) -> bool:
    """Wait for a condition and return whether it came."""
    deadline = time.monotonic() + seconds
    while not fulfilled():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def interrupt(project: Project, trial: Trial, undisturbed: Undisturbed, source: random.Random) -> None:
    """Run until the interruption and note what it was; a run that ended before it begins again, and ends earlier."""
    seconds = source.uniform(0.0, 0.95) * undisturbed.seconds[trial.door]
    while trial.first_code is None:
        writes = source.randint(FIRST_WRITES, LAST_WRITES)
        process = project.start(trial.door, **({"DRILL_FULL_DISK": str(writes)} if trial.kind == DISK else {}))
        wait_for_training(project, process)
        if trial.kind == DISK:
            trial.at, trial.victim = f"write {writes}", "train"
            process.wait()
        elif not wait_until(lambda p=process: p.poll() is not None, seconds):  # type: ignore[misc]
            trial.at = f"{seconds:.1f} s"
            strike(process, trial, source)
        code = process.wait()
        if code:
            trial.first_code = code
        else:
            seconds /= 2
            project.reset()


def check_ending(trial: Trial, log: str) -> list[str]:
    """Return what the interrupted command should have told otherwise."""
    expected = {"SIGTERM": 143, "SIGINT": 143, DISK: 4}.get(trial.kind)
    wrong = []
    if "Traceback" in log:
        wrong.append("a trace in the log of the interrupted run")
    if expected and trial.door != "dvc" and trial.first_code != expected:  # DVC's own code is 255 whatever the reason
        wrong.append(f"exit code {trial.first_code} instead of {expected}")
    if trial.kind == DISK and "the disk is full" not in log:
        wrong.append("nothing said of the full disk")
    return wrong


def strike(process: subprocess.Popen, trial: Trial, source: random.Random) -> None:
    """Send the trial's signal: SIGKILL to any process of the tree, SIGINT as a terminal does, SIGTERM to the door."""
    door = psutil.Process(process.pid)
    family = sorted([door, *door.children(recursive=True)], key=lambda member: member.pid)
    if trial.kind == "SIGKILL":
        victim = source.choice(family)
        trial.victim = role_of(victim)
        signal_process(victim.pid, signal.SIGKILL)
    elif trial.kind == "SIGINT":
        trial.victim = "terminal"
        os.killpg(process.pid, signal.SIGINT)
    else:
        trial.victim = trial.door
        signal_process(door.pid, signal.SIGTERM)
        if trial.door == "dvc":  # a service manager's stop reaches the group; dvc alone passes nothing on
            os.killpg(process.pid, signal.SIGTERM)


def attempt(project: Project, number: int, seed: int, undisturbed: Undisturbed, doors: tuple[str, ...]) -> Trial:
    """Interrupt one run, go on, and compare."""
    source = random.Random(f"{seed}/{number}")
    trial = Trial(number, doors[number // len(KINDS) % len(doors)], KINDS[number % len(KINDS)])
    copy = project.copy()
    interrupt(copy, trial, undisturbed, source)
    if not wait_until(lambda: not processes_of(copy.folder), GONE_SECONDS):
        left = processes_of(copy.folder)
        trial.problems.append(f"left behind: {', '.join(role_of(process) for process in left)}")
        for process in left:
            signal_process(process.pid, signal.SIGKILL)
    trial.problems += check_ending(trial, copy.log.read_text())
    code = copy.start(trial.door).wait() or copy.publish(trial.door)
    if code:
        trial.problems.append(f"the same command ended with {code}: {copy.last_line()}")
    else:
        trial.problems += Outcome.read(copy.folder).differences(undisturbed.outcome)
    if processes_of(copy.folder):
        trial.problems.append("left behind after the end")
    if trial.problems:
        copy.keep(number)
    copy.remove()
    return trial


def drill(project: Project, count: int, seed: int, doors: tuple[str, ...]) -> list[Trial]:
    """Interrupt `count` runs of a prepared project, print each trial as it ends, and return them."""
    used = {doors[number // len(KINDS) % len(doors)] for number in range(count)}
    undisturbed = run_undisturbed(project, used)
    trials = []
    print(f"{'trial':>5}  {'door':<5} {'interruption':<12} {'victim':<24} {'at':<10} {'code':>5}  result", flush=True)
    for number in range(count):
        trial = attempt(project, number, seed, undisturbed, doors)
        result = "; ".join(trial.problems) or "equal"
        row = f"{number:>5}  {trial.door:<5} {trial.kind:<12} {trial.victim:<24} {trial.at:<10} {trial.first_code!s:>5}"
        print(f"{row}  {result}", flush=True)
        trials.append(trial)
    return trials


def main() -> int:
    """Drill and return 0, or 1 where an interrupted run differed."""
    parser = argparse.ArgumentParser(prog="python -m tests.drill.interruptions", description=__doc__)
    parser.add_argument("--count", type=int, default=30, help="runs to interrupt")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--whole", action="store_true", help="the stages after the training, too")
    arguments = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        targets, doors = ((), WHOLE_DOORS) if arguments.whole else ((f"train@{MODEL}",), DOORS)
        trials = drill(default_project(Path(folder).resolve(), targets), arguments.count, arguments.seed, doors)
    bad = sum(bool(trial.problems) for trial in trials)
    print(f"{len(trials)} interruptions, {bad} different, {time.monotonic() - started:.0f} s")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
