"""Fetch the selected source of pictures into data/raw."""

import sys
from pathlib import Path

from stages.process import parse_arguments, run_stage
from stages.settings import load_settings


def main() -> int:
    """Run the stage and return its exit code."""
    arguments = parse_arguments("download", __doc__, per_model=False)

    def work() -> None:
        from stages.download.run import run

        run(load_settings(arguments.params).data, Path("data/source.lock.json"), Path("data/raw"))

    return run_stage("download", work)


if __name__ == "__main__":
    sys.exit(main())
