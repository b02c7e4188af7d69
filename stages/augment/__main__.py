"""Write the augmentation policy that training obeys, and a preview of it."""

import sys
from pathlib import Path

from stages.process import parse_arguments, run_stage
from stages.settings import load_settings


def main() -> int:
    """Run the stage and return its exit code."""
    arguments = parse_arguments("augment", __doc__, per_model=False)

    def work() -> None:
        from stages.augment.run import run

        run(load_settings(arguments.params).augment, Path("data/images"), Path("data/augment"))

    return run_stage("augment", work)


if __name__ == "__main__":
    sys.exit(main())
