"""Train one selected model; a state of the same fingerprint is resumed."""

import argparse
import sys
from pathlib import Path

from stages.process import parse_arguments, run_stage
from stages.settings import load_settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that only training has."""
    parser.add_argument("--adopt", metavar="FINGERPRINT", help="go on from a state of other code or settings")


def main() -> int:
    """Run the stage and return its exit code."""
    arguments = parse_arguments("train", __doc__, per_model=True, extra=add_arguments)

    def work() -> None:
        settings = load_settings(arguments.params)
        model, data = settings.model(arguments.model), Path("data") / settings.select[arguments.model].data
        from stages.train.run import run

        training = Path("models") / arguments.model / "training"
        run(arguments.model, model, Path("data/images"), Path("data/augment"), training, arguments.adopt, data)

    return run_stage(f"train@{arguments.model}", work, several=True)


if __name__ == "__main__":
    sys.exit(main())
