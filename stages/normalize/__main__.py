"""Resample every cropped picture into the data contract of data/images."""

import sys
from pathlib import Path

from stages.process import parse_arguments, run_stage
from stages.settings import load_settings


def main() -> int:
    """Run the stage and return its exit code."""
    arguments = parse_arguments("normalize", __doc__, per_model=False)

    def work() -> None:
        from stages.normalize.run import run

        settings = load_settings(arguments.params)
        limit = settings.data.max_reject_share
        inputs = Path("data/raw"), Path("data/crops"), Path("data/groups.lock.json")
        run(settings.normalize, limit, *inputs, Path("data/images"))

    return run_stage("normalize", work)


if __name__ == "__main__":
    sys.exit(main())
