"""Certify a model's ONNX files: how far each draws from torch, and which may be released."""

import sys
from pathlib import Path

from stages.process import parse_arguments, run_stage
from stages.settings import load_settings


def main() -> int:
    """Run the stage and return its exit code."""
    arguments = parse_arguments("certify", __doc__, per_model=True)

    def work() -> None:
        settings = load_settings(arguments.params)
        settings.model(arguments.model)  # a name that is not selected is refused here
        from stages.certify.run import run
        from stages.evaluate.inputs import Inputs

        model = Path("models") / arguments.model
        run(settings.certify, settings.evaluate, Inputs.of(arguments.model), model / "onnx", model / "certificate")

    return run_stage(f"certify@{arguments.model}", work)


if __name__ == "__main__":
    sys.exit(main())
