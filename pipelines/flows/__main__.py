"""Run a Prefect flow: `python -m pipelines.flows lifecycle`.

Needs no server set up: without PREFECT_API_URL Prefect starts one of its own for the time of the run.
"""

import argparse
import sys

from pipelines.execution import run_supervised
from stages.errors import StageError
from stages.process import STOP, prepare_environment
from stages.settings import load_settings


def main() -> int:
    """Run a flow by name and return the exit code of the first stage that failed, or 0."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.flows", description=__doc__)
    parser.add_argument("flow", choices=["lifecycle"], help="which flow to run")
    parser.add_argument("--no-publish", action="store_true", help="do not show the results in MLflow")
    arguments = parser.parse_args()
    prepare_environment()
    STOP.install(insistent=True)
    try:
        load_settings()  # a wrong setting is told at once, not after Prefect has started
        options = ["--no-publish"] if arguments.no_publish else []
        command = [sys.executable, "-m", f"pipelines.flows.{arguments.flow}", *options]
        # Supervised, since Prefect leaves its own server behind when a flow is stopped or killed; the flow ends first,
        # so that it can still tell that server how it ended.
        return run_supervised(command, options=("--leader-first",))
    except StageError as error:
        print(f"flows: {error}", file=sys.stderr)
        return error.code


if __name__ == "__main__":
    sys.exit(main())
