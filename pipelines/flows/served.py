"""Serves the flow `lifecycle` through Prefect's runner; `pipelines.serve` supervises it.

One run at a time: a scheduled run that finds another one at work in this folder is cancelled. That is decided by the
folder's own lock and not by Prefect's concurrency limit, whose lease ends a run when the server is away for minutes.
"""

import sys
import warnings
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import anyio
import httpx
from prefect.client.schemas.schedules import CronSchedule
from prefect.deployments.runner import EntrypointType
from prefect.runner import _scheduled_run_poller as poller
from prefect.settings import get_current_settings

from pipelines.entry import answer
from pipelines.flows.lifecycle import lifecycle
from pipelines.flows.outage import describe_outage, is_outage
from stages.errors import FetchError, InputError

NAME = "lifecycle"
# what Prefect's runner leaves on SIGTERM
warnings.filterwarnings("ignore", message="coroutine 'Runner.astop' was never awaited", category=RuntimeWarning)


async def ask_on(workload: Callable[[], Awaitable[Any]], interval: float, **_: Any) -> None:
    """Ask the server for what is due every `interval` seconds, however long it does not answer.

    Stands in for Prefect's own loop, which gives up after three failures and takes the run at work down with it.
    """
    silent = False
    while True:
        try:
            await workload()
            silent = False
        except httpx.HTTPError as error:
            if not is_outage(error):
                raise
            if not silent:
                tell(f"{describe_outage(error)}; what runs goes on, and nothing new starts until it answers")
            silent = True
        await anyio.sleep(interval)


def serve(schedule: dict[str, Any]) -> int:
    """Serve the flow until the process is stopped.

    Raises:
        InputError: no server is named.
        FetchError: the server does not answer at the start.
    """
    if not get_current_settings().api.url:
        raise InputError("a schedule needs a server: start one with `prefect server start` and set PREFECT_API_URL")
    setattr(poller, "critical_service_loop", ask_on)  # noqa: B010 - mypy takes the plain assignment for a mistake
    tell(f"serving {NAME} at {' '.join(f'{key} {value}' for key, value in schedule.items())}; Ctrl-C ends it")
    try:
        lifecycle.serve(
            name=NAME,
            **schedule,
            pause_on_shutdown=False,
            print_starting_message=False,
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
    except Exception as error:
        if not is_outage(error):
            raise
        raise FetchError(f"{describe_outage(error)}; is PREFECT_API_URL right and its server up?") from None
    return 0


def read_schedule(options: list[str]) -> dict[str, Any]:
    """Return the arguments of `flow.serve` for `--cron CRON` or `--interval SECONDS`.

    Raises:
        InputError: the expression or the number is none.
    """
    kind, value = options
    if kind == "--cron":
        try:
            return {"cron": CronSchedule(cron=value).cron}
        except ValueError as error:
            reason = str(getattr(error, "errors", list)()[0]["msg"]).removeprefix("Value error, ")
            raise InputError(f"--cron is {value!r}: {reason}; such as '0 3 * * *'") from None
    seconds = float(value)
    if not seconds >= 1:
        raise InputError(f"--interval is {value}; at least 1 second")
    return {"interval": seconds}


def tell(line: str) -> None:
    """Print a line at once."""
    print(f"serve: {line}", flush=True)


def main() -> int:
    """Serve from the command line and return the exit code."""
    return answer("serve", partial(_serve, sys.argv[1:]))


def _serve(options: list[str]) -> int:
    return serve(read_schedule(options))


if __name__ == "__main__":
    sys.exit(main())
