"""The flow `lifecycle`: the same run as `pipelines.run` with one Prefect task per stage.

Imports prefect, which takes seconds and reads the environment: `stages.process.prepare_environment` comes first.
"""

import logging
import sys
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from pipelines.execution import BACKOFF_SECONDS, Outcome, repro, retries_of
from pipelines.lifecycle import close_run, exit_code, opened_project, run_steps
from pipelines.plan import Step, describe, plan
from pipelines.publish import publish_changed
from stages.errors import FetchError, StageError

PLAN_KEY = "plan"


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


@flow(name="lifecycle", persist_result=False, validate_parameters=False)
def lifecycle(publish_results: bool = True) -> None:
    """Bring everything that is stale up to date, one task per stage, and publish it.

    Raises:
        StageFailedError: the first stage that failed; stages that did not need it have run.
        StageError: settings or sources do not allow a run, an ONNX file is not its record's, or files changed since.
    """
    logger = get_run_logger()
    with opened_project() as settings:
        steps = plan()
        logger.info(describe(steps))
        _show_plan(steps)
        outcomes = run_steps(steps, _run_step, logger.info)
        whole = bool(steps and not exit_code(outcomes))
        failures = close_run(settings, publish if publish_results else None, whole)
    errors = [*(StageFailedError(outcome) for outcome in outcomes if outcome.code), *failures]
    for error in errors[1:]:
        logger.error("%s", error)
    if errors:
        raise errors[0]


def _run_step(step: Step) -> Outcome:
    retries = retries_of(step.stage)
    pauses = list(BACKOFF_SECONDS[:retries])
    named = reproduce.with_options(task_run_name=step.stage, retries=retries, retry_delay_seconds=pauses or 0)
    try:
        outcome: Outcome = named(step.stage)
    except StageFailedError as failure:
        return failure.outcome
    return outcome


def _show_plan(steps: list[Step]) -> None:
    rows = [{"stage": s.stage, "why": "; ".join(s.reasons), "seconds last time": s.seconds} for s in steps]
    create_table_artifact(key=PLAN_KEY, table=rows, description=describe(steps).splitlines()[0])


def drop_known(record: logging.LogRecord) -> bool:
    """Keep a log record unless it shows the trace of an error of ours: the flow's state and our own line tell it."""
    return not (record.exc_info and isinstance(record.exc_info[1], StageError))


def strip_known(record: logging.LogRecord) -> bool:
    """Keep a log record, without the trace where it shows one of an error of ours."""
    if not drop_known(record):
        record.exc_info = None
    return True


def main() -> int:
    """Run the flow in this process and return the exit code of the first stage that failed, or 0."""
    logging.getLogger("prefect.flow_runs").addFilter(drop_known)
    logging.getLogger("prefect.task_runs").addFilter(strip_known)
    try:
        lifecycle(publish_results="--no-publish" not in sys.argv[1:])
    except StageError as error:
        print(f"lifecycle: {error}", file=sys.stderr)
        return error.code
    except RuntimeError as error:
        if " API" not in str(error):  # Prefect's words for a server that does not answer
            raise
        print(f"lifecycle: Prefect: {error}; is PREFECT_API_URL right and its server up?", file=sys.stderr)
        return FetchError.code
    return 0


if __name__ == "__main__":
    sys.exit(main())
