"""Run a Prefect flow: `python -m pipelines.flows lifecycle`.

Needs no server set up: without PREFECT_API_URL Prefect starts one of its own for the time of the run.
"""

import argparse
import sys
from functools import partial

from pipelines.entry import answer
from pipelines.execution import run_supervised
from pipelines.flows.outage import set_patience
from stages.settings import load_settings


def main() -> int:
    """Run a flow by name and return the exit code of the first stage that failed, or 0."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.flows", description=__doc__)
    parser.add_argument("flow", choices=["lifecycle"], help="which flow to run")
    parser.add_argument("--no-publish", action="store_true", help="do not show the results in MLflow")
    parser.add_argument("--wait", action="store_true", help="wait for another run in this folder, instead of leaving")
    arguments = parser.parse_args()
    options = [option for option in ("--no-publish", "--wait") if getattr(arguments, option[2:].replace("-", "_"))]
    return answer("flows", partial(_run_supervised, arguments.flow, options))


def _run_supervised(flow: str, options: list[str]) -> int:
    load_settings()  # a wrong setting is told at once, not after Prefect has started
    set_patience()
    # Supervised, since Prefect leaves its own server behind when a flow is stopped or killed; the flow ends first, so
    # that it can still tell that server how it ended.
    return run_supervised([sys.executable, "-m", f"pipelines.flows.{flow}", *options], options=("--leader-first",))


if __name__ == "__main__":
    sys.exit(main())
