"""The plain runner: brings everything that is stale up to date, publishes it and prints the results.

`python -m pipelines.run [TARGET...]`, without Prefect. Exit codes: 0, or that of the first stage that failed.
"""

import argparse
import sys
import time
from functools import partial

from pipelines.entry import answer
from pipelines.execution import Outcome, repro_with_retries
from pipelines.lifecycle import choose, close_run, exit_code, opened_project, run_steps
from pipelines.live import followed
from pipelines.plan import Step, describe, plan
from pipelines.publish import publish_changed
from stages.errors import InputError, StageError


def run(targets: list[str], publish: bool = True, wait: bool = False) -> int:
    """Run the stages that are stale and return the exit code.

    Raises:
        StageError: settings, sources or the project itself do not allow a run, or it was interrupted.
    """
    started = time.monotonic()
    with opened_project(say if wait else None) as settings:
        check_targets(targets, list(settings.select))
        steps = choose(plan(), targets)
        say(describe(steps, targets))
        with followed(steps if publish else [], say):
            outcomes = run_steps(steps, _run_step, say)
        code = exit_code(outcomes)
        whole = bool(steps and not code and not targets)
        failures = close_run(settings, partial(publish_changed, tell=say) if publish else None, whole)
    for failed in (outcome for outcome in outcomes if outcome.code):
        say(f"{failed.stage} failed with exit code {failed.code}: {failed.reason}")
    for failure in failures:
        complain(failure)
        code = code or failure.code
    if steps:
        say(f"{'failed' if code else 'done'} after {time.monotonic() - started:.0f} s")
    return code


def _run_step(step: Step) -> Outcome:
    say(f"== {step.stage}: {'; '.join(step.reasons)}")
    outcome = repro_with_retries(step.stage)
    if not outcome.code:
        say(f"== {step.stage}: {outcome.seconds:.1f} s")
    return outcome


def check_targets(targets: list[str], models: list[str]) -> None:
    """Refuse a target that is no stage, no kind of stage and no selected model.

    Raises:
        InputError: the unknown target and the allowed ones.
    """
    from pipelines.plan import read_graph

    if not targets:
        return
    stages = list(read_graph())
    kinds = dict.fromkeys(stage.partition("@")[0] for stage in stages)
    unknown = [target for target in targets if target not in {*stages, *kinds, *models}]
    if unknown:
        raise InputError(f"{unknown[0]} is no target; allowed: {', '.join([*kinds, *models])}, or KIND@MODEL")


def say(line: str) -> None:
    """Print a line at once, in order with what the stages print."""
    print(line, flush=True)


def complain(error: StageError) -> None:
    """Print why the run failed, as one line."""
    print(f"run: {error}", file=sys.stderr, flush=True)


def main() -> int:
    """Run from the command line and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.run", description=__doc__)
    parser.add_argument("targets", nargs="*", help="a stage (train@dcgan), a kind (train) or a model; default: all")
    parser.add_argument("--no-publish", action="store_true", help="do not show the results in MLflow")
    parser.add_argument("--wait", action="store_true", help="wait for another run in this folder, instead of leaving")
    arguments = parser.parse_args()
    return answer("run", partial(run, arguments.targets, not arguments.no_publish, arguments.wait))


if __name__ == "__main__":
    sys.exit(main())
