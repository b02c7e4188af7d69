"""Train or take an autoencoder, measure it on the hold-out, and encode all pictures into data/latents/NAME."""

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
    arguments = parse_arguments("autoencoder", __doc__, per_model=True, extra=add_arguments)
    name = arguments.model

    def work() -> None:
        settings = load_settings(arguments.params).autoencoder(name)
        from stages.autoencoder.run import run

        place, latents = Path("models/autoencoders") / name, Path("data/latents") / name
        run(name, settings, Path("data/images"), Path("data/augment"), place, latents, arguments.adopt)

    return run_stage(f"autoencoder@{name}", work, several=True)


if __name__ == "__main__":
    sys.exit(main())
