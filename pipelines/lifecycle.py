"""What both front doors do around the stages: one run at a time, fresh pins, a plan, skipping, the closing check."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from pipelines.comparison import bring_up_to_date
from pipelines.dvc import wait_for_other
from pipelines.execution import Outcome
from pipelines.plan import Step, read_status
from pipelines.refresh import refresh
from pipelines.report import print_report
from stages.errors import InputError, Interrupted, StageError
from stages.process import stage_lock
from stages.settings import Settings, load_settings

LOCK = "pipeline"


@contextlib.contextmanager
def opened_project(wait: Callable[[str], None] | None = None) -> Iterator[Settings]:
    """Check the settings, hold the workspace's lock, bring the pins up to date, and yield the settings.

    Where another run or a dvc is at work here, `wait` is told so, and it is waited for.

    Raises:
        InputError: a setting is wrong, a source is not there, or another run is at work here and there is no `wait`.
    """
    if not Path("dvc.yaml").exists():
        raise InputError(f"{Path.cwd()} holds no dvc.yaml; run in the project's folder")
    load_settings()  # a wrong one is told at once
    with stage_lock(LOCK, wait):
        wait_for_other(wait)
        settings = load_settings()  # they may have been edited while it was waited
        for path in refresh(settings):
            print(f"{path} rewritten: the source or the weights differ from what was pinned", flush=True)
        yield settings


def choose(steps: list[Step], targets: list[str]) -> list[Step]:
    """Return the steps that targets (a stage, `train` for all of a kind, or a model) need, themselves included."""
    if not targets:
        return steps
    wanted = {step.stage for step in steps if {step.stage, *step.stage.split("@")} & set(targets)}
    for step in reversed(steps):
        if step.stage in wanted:
            wanted |= set(step.after)
    return [step for step in steps if step.stage in wanted]


def run_steps(steps: list[Step], run_step: Callable[[Step], Outcome], tell: Callable[[str], None]) -> list[Outcome]:
    """Run steps in order and return how each ended; one whose input failed is left out, the others go on."""
    failed: set[str] = set()
    outcomes = []
    for step in steps:
        blocked = [name for name in step.after if name in failed]
        if blocked:
            tell(f"{step.stage}: left out, since {', '.join(blocked)} failed")
            failed.add(step.stage)
            continue
        outcome = run_step(step)
        outcomes.append(outcome)
        if outcome.code:
            tell(f"{step.stage}: failed with exit code {outcome.code}: {outcome.reason}")
            failed.add(step.stage)
    return outcomes


def exit_code(outcomes: list[Outcome]) -> int:
    """Return the code of the first stage that failed, 0 where none did."""
    return next((outcome.code for outcome in outcomes if outcome.code), 0)


def try_all(works: Iterable[Callable[[], object]]) -> list[StageError]:
    """Do each work whatever became of those before it, and return the failures.

    Raises:
        Interrupted: it was asked to stop.
    """
    failures = []
    for work in works:
        try:
            work()
        except Interrupted:
            raise
        except StageError as error:
            failures.append(error)
    return failures


def close_run(settings: Settings, publish: Callable[[Settings], object] | None, whole: bool) -> list[StageError]:
    """Compare, publish, show the results, then see whether a whole run left something stale; return what went wrong."""
    works: list[Callable[[], object]] = [partial(bring_up_to_date, settings)]
    works += [partial(publish, settings)] if publish else []
    works.append(partial(print_report, settings))
    return try_all([*works, check_current] if whole else works)


def check_current() -> None:
    """Make sure that nothing is stale after a run.

    Raises:
        StageError: `dvc status` still names stages; something changed while the run went on.
    """
    stale = read_status()
    if stale:
        raise StageError(f"after the run dvc status still names {', '.join(stale)}: files changed meanwhile; run again")
