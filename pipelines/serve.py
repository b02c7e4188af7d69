"""Runs the flow `lifecycle` on a schedule until it is stopped: `python -m pipelines.serve --cron "0 3 * * *"`.

Needs a Prefect server: `prefect server start`, its address in PREFECT_API_URL.
"""

import argparse
import sys
from functools import partial

from pipelines.entry import answer
from pipelines.execution import run_supervised
from pipelines.flows.outage import set_patience
from stages.settings import load_settings


def main() -> int:
    """Serve the flow and return the exit code: 143 when it was asked to stop."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.serve", description=__doc__)
    when = parser.add_mutually_exclusive_group(required=True)
    when.add_argument("--cron", metavar="CRON", help='five fields: minute, hour, day, month, weekday ("0 3 * * *")')
    when.add_argument("--interval", type=float, metavar="SECONDS", help="seconds between two starts")
    arguments = parser.parse_args()
    schedule = ["--cron", arguments.cron] if arguments.cron is not None else ["--interval", str(arguments.interval)]
    return answer("serve", partial(_serve_supervised, schedule))


def _serve_supervised(schedule: list[str]) -> int:
    load_settings()
    set_patience()
    # Supervised, since Prefect leaves a flow's processes behind when what serves it, or a flow itself, is killed.
    return run_supervised([sys.executable, "-m", "pipelines.flows.served", *schedule], options=("--leader-first",))


if __name__ == "__main__":
    sys.exit(main())
