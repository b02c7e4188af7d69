"""The flow `lifecycle`: the same run as `pipelines.run` with one Prefect task per stage.

Imports prefect, which takes seconds and reads the environment: `stages.process.prepare_environment` comes first.
"""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.runtime import deployment
from prefect.states import Cancelled

from pipelines.entry import answer
from pipelines.execution import BACKOFF_SECONDS, Outcome, repro, repro_with_retries, retries_of
from pipelines.flows.outage import describe_outage, is_outage, or_without
from pipelines.flows.quiet import quieten
from pipelines.lifecycle import close_run, exit_code, opened_project, run_steps
from pipelines.live import followed
from pipelines.plan import Step, describe, plan
from pipelines.publish import publish_changed
from stages.errors import FetchError, StageError
from stages.process import AtWorkError
from stages.settings import Settings

PLAN_KEY = "plan"
Tell = Callable[[str], None]


class StageFailedError(StageError):
    """A stage ended with an exit code other than 0; carries how."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(f"{outcome.stage}: exit code {outcome.code}: {outcome.reason}")
        self.outcome = outcome
        self.code = outcome.code
        self.retryable = outcome.retryable


def may_help(_task: Any, _run: Any, state: Any) -> bool:
    """Return whether repeating a failed task can help: the stage's own note says so."""
    failure = state.result(raise_on_failure=False)
    return isinstance(failure, StageFailedError) and failure.retryable


# DVC decides what is stale, so Prefect must not skip a task because it remembers a result.
@task(cache_policy=NO_CACHE, persist_result=False, retry_condition_fn=may_help)
def reproduce(stage: str) -> Outcome:
    """Bring one stage up to date, its output in Prefect's log.

    Raises:
        StageFailedError: it ended with an exit code other than 0.
    """
    logger = get_run_logger()
    outcome = repro(stage, logger.info)
    if outcome.code:
        raise StageFailedError(outcome)
    return outcome


@task(cache_policy=NO_CACHE, persist_result=False)
def publish(settings: Any) -> list[str]:
    """Show what is new in MLflow and return the models that were published."""
    return publish_changed(settings, get_run_logger().info)


@dataclass
class Journey:
    """How far this process's run has come and what went wrong, also where Prefect can no longer be told."""

    begun: bool = False
    ended: bool = False
    untold: bool = False
    errors: list[StageError] = field(default_factory=list)


JOURNEY = Journey()


@flow(name="lifecycle", persist_result=False, validate_parameters=False)
def lifecycle(publish_results: bool = True, wait: bool = False) -> Any:
    """Bring everything that is stale up to date, one task per stage, and publish it.

    On a schedule, a run that finds another one at work here is cancelled, where it does not `wait`.

    Raises:
        StageFailedError: the first stage that failed; stages that did not need it have run.
        StageError: settings or sources do not allow a run, an ONNX file is not its record's, or files changed since.
    """
    JOURNEY.begun = True
    quieten()
    logger = get_run_logger()
    try:
        JOURNEY.errors = _bring_up_to_date(publish_results, wait, logger.info)
    except StageError as error:
        if isinstance(error, AtWorkError) and deployment.id:
            return Cancelled(message=f"left out: {error}")
        JOURNEY.errors = [error]
    JOURNEY.ended = True
    for failure in JOURNEY.errors[1:]:
        logger.error("%s", failure)
    if JOURNEY.errors:
        raise JOURNEY.errors[0]
    return None


def _bring_up_to_date(publish_results: bool, wait: bool, tell: Tell) -> list[StageError]:
    with opened_project(tell if wait else None) as settings:
        steps = plan()
        tell(describe(steps))
        or_without(partial(_show_plan, steps), lambda: None, tell)
        with followed(steps if publish_results else [], tell):
            outcomes = run_steps(steps, partial(_run_step, tell), tell)
        whole = bool(steps and not exit_code(outcomes))
        failures = close_run(settings, partial(_publish, tell) if publish_results else None, whole)
    return [*(StageFailedError(outcome) for outcome in outcomes if outcome.code), *failures]


def _run_step(tell: Tell, step: Step) -> Outcome:
    retries = retries_of(step.stage)
    pauses = list(BACKOFF_SECONDS[:retries])
    named = reproduce.with_options(task_run_name=step.stage, retries=retries, retry_delay_seconds=pauses or 0)
    try:
        outcome: Outcome = or_without(partial(named, step.stage), partial(repro_with_retries, step.stage, tell), tell)
    except StageFailedError as failure:
        return failure.outcome
    return outcome


def _publish(tell: Tell, settings: Settings) -> None:
    or_without(partial(publish, settings), partial(publish_changed, settings, tell), tell)


def _show_plan(steps: list[Step]) -> None:
    rows = [{"stage": s.stage, "why": "; ".join(s.reasons), "seconds last time": s.seconds} for s in steps]
    create_table_artifact(key=PLAN_KEY, table=rows, description=describe(steps).splitlines()[0])


def run_flow(publish_results: bool, wait: bool) -> int:
    """Run the flow in this process and return 0.

    Raises:
        StageError: as the flow, also where Prefect could not be told how it ended.
        FetchError: Prefect's server does not answer from the start.
    """
    try:
        lifecycle(publish_results=publish_results, wait=wait)
    except StageError:
        raise
    except Exception as error:
        if not is_outage(error):
            raise
        return _end_without_prefect(error, publish_results, wait)
    return 0


def _end_without_prefect(error: Exception, publish_results: bool, wait: bool) -> int:
    """Return how a run ended that Prefect was not told of; what is not done yet is done by the plain runner."""
    if not JOURNEY.begun:
        reason = " ".join(str(error).split())
        raise FetchError(f"Prefect: {reason}; is PREFECT_API_URL right and its server up?") from None
    JOURNEY.untold = True
    print(f"lifecycle: {describe_outage(error)}: it was not told how the run ended", file=sys.stderr, flush=True)
    if not JOURNEY.ended:
        from pipelines.run import run

        return run([], publish_results, wait)
    if JOURNEY.errors:
        raise JOURNEY.errors[0] from None
    return 0


def main() -> int:
    """Run the flow from the command line and return the exit code of the first stage that failed, or 0."""
    options = sys.argv[1:]
    code = answer("lifecycle", partial(run_flow, "--no-publish" not in options, "--wait" in options))
    if JOURNEY.untold:  # Prefect's senders would wait for the server at exit, some seconds for each event and log line
        sys.stdout.flush()
        os._exit(code)
    return code


if __name__ == "__main__":
    sys.exit(main())
