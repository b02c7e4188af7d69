"""Choose the square crop of every picture in data/raw."""

import sys
from pathlib import Path

from stages.process import parse_arguments, run_stage
from stages.settings import load_settings


def main() -> int:
    """Run the stage and return its exit code."""
    arguments = parse_arguments("align", __doc__, per_model=False)

    def work() -> None:
        from stages.align.run import run

        settings = load_settings(arguments.params)
        limit, normalize = settings.data.max_reject_share, settings.normalize
        run(settings.align, normalize.background, limit, normalize.workers, Path("data/raw"), Path("data/crops"))

    return run_stage("align", work)


if __name__ == "__main__":
    sys.exit(main())
