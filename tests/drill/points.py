"""Crashes a training at every write and step, goes on, and compares: `python -m tests.drill.points [--count 1000]`.

Each crash ends a forked process without any clean-up. Nothing may be lost but the pictures since the last state, and
the finished training must equal an undisturbed one to the byte.
"""

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from stages.progress import progress
from tests.drill.worker import CRASHED, Ending, differences, fingerprint, prepare, train

TORN_AT = ("fsync", "save_file wrote")


@dataclass(frozen=True)
class Crash:
    """One crash of a trial: at which point, and whether the file being written loses its end."""

    point: int
    torn: bool = False


@dataclass(frozen=True)
class Trial:
    """What came of a training with crashes."""

    crashes: tuple[Crash, ...]
    names: tuple[str, ...]
    lost: int  # pictures that were saved and had to be seen again
    problems: tuple[str, ...]


def choose_crashes(names: list[str], count: int, seed: int) -> list[tuple[Crash, ...]]:
    """Return the crashes of each trial: first each point alone, whole and torn, then two in one training at random.

    Fewer than there are points are spread evenly.
    """
    single: list[tuple[Crash, ...]] = [(Crash(number),) for number in range(1, len(names) + 1)]
    torn: list[tuple[Crash, ...]] = [
        (Crash(number, True),) for number, name in enumerate(names, 1) if name.startswith(TORN_AT)
    ]
    chosen = single + torn
    if count < len(chosen):
        return [chosen[len(chosen) * number // count] for number in range(count)]
    source = random.Random(seed)
    for _ in range(count - len(chosen)):
        crashes = [Crash(source.randint(1, len(names)), source.random() < 0.5) for _ in range(2)]
        chosen.append(tuple(crashes))
    return chosen


def try_crashes(data: Path, folder: Path, crashes: tuple[Crash, ...], names: list[str], undisturbed: dict) -> Trial:
    """Train with crashes, then to the end, and compare."""
    shutil.rmtree(folder, ignore_errors=True)
    problems, lost, sure = [], 0, 0
    for number, crash in enumerate(crashes):
        ending = train(data, folder, crash.point, crash.torn, seed=crash.point)
        if ending.code != CRASHED and (number == 0 or ending.code):  # a resumed training may end before its point
            problems.append(f"exit code {ending.code} instead of a crash")
        lost += seen_again(sure, ending)
        sure = max(sure, ending.saved)
    ending = train(data, folder)
    if ending.code:
        problems.append(f"going on ended with {ending.code}: {last_line(folder)}")
    lost += seen_again(sure, ending)
    problems += differences(folder, undisturbed)
    return Trial(crashes, tuple(names[crash.point - 1] for crash in crashes), lost, tuple(problems))


def seen_again(sure: int, ending: Ending) -> int:
    """Return how many pictures that were saved a worker saw again; none where it crashed before it began."""
    return 0 if ending.begun is None else max(0, sure - ending.begun)


def last_line(folder: Path) -> str:
    """Return the last line that the worker of a folder printed."""
    lines = folder.with_suffix(".log").read_text().splitlines()
    return lines[-1] if lines else ""


def drill(count: int, seed: int, folder: Path) -> list[Trial]:
    """Crash `count` trainings in a folder and return what came of each."""
    data = prepare(folder / "data")
    first = train(data, folder / "undisturbed")
    if first.code:
        raise RuntimeError(f"the undisturbed training ended with {first.code}: {last_line(folder / 'undisturbed')}")
    undisturbed = fingerprint(folder / "undisturbed")
    check_repeatable(data, folder / "again", first, undisturbed)
    chosen = choose_crashes(first.names, count, seed)
    bar = progress(chosen, "crashes", len(chosen), "trainings")
    return [try_crashes(data, folder / "crashed", crashes, first.names, undisturbed) for crashes in bar]


def check_repeatable(data: Path, folder: Path, first: Ending, undisturbed: dict[str, str]) -> None:
    """Make sure that what trials are compared with is no accident."""
    again = train(data, folder)
    if again.names != first.names or differences(folder, undisturbed):
        raise RuntimeError("two undisturbed trainings differ; there is nothing to compare with")


def print_table(trials: list[Trial]) -> None:
    """Print, for each kind of point, how many crashes it saw and what went wrong."""
    seen: Counter[str] = Counter()
    bad: Counter[str] = Counter()
    for trial in trials:
        for name, crash in zip(trial.names, trial.crashes, strict=True):
            kind = f"{name}{' (torn)' if crash.torn and name.startswith(TORN_AT) else ''}"
            seen[kind] += 1
            bad[kind] += bool(trial.lost or trial.problems)
    width = max(map(len, seen))
    print(f"{'point':<{width}}  crashes  lost or different")
    for kind in sorted(seen):
        print(f"{kind:<{width}}  {seen[kind]:>7}  {bad[kind]:>17}")


def main() -> int:
    """Drill and return 0, or 1 where anything was lost or came out otherwise."""
    parser = argparse.ArgumentParser(prog="python -m tests.drill.points", description=__doc__)
    parser.add_argument("--count", type=int, default=1000, help="trainings to crash")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    import torch

    torch.set_num_threads(1)  # before the forks: a forked process has no threads of its parent
    import_module("stages.train.run")  # once, not in every fork
    import_module("torch._dynamo")  # which the optimizers load

    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        trials = drill(arguments.count, arguments.seed, Path(folder).resolve())
    print_table(trials)
    bad = [trial for trial in trials if trial.lost or trial.problems]
    for trial in bad[:20]:
        print(f"{trial.names} at {trial.crashes}: lost {trial.lost} pictures; {'; '.join(trial.problems)}")
    lost = sum(trial.lost > 0 for trial in trials)
    different = sum(bool(trial.problems) for trial in trials)
    seconds = time.monotonic() - started
    crashes = sum(len(trial.crashes) for trial in trials)
    print(f"{len(trials)} trainings, {crashes} crashes, {lost} lost, {different} different, {seconds:.0f} s")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
