"""Time a model's ONNX file on every provider that runs all of it, with eager torch beside it."""

import sys
from pathlib import Path

from stages.process import parse_arguments, run_stage
from stages.settings import load_settings


def main() -> int:
    """Run the stage and return its exit code."""
    arguments = parse_arguments("benchmark", __doc__, per_model=True)

    def work() -> None:
        from stages.benchmark.run import run

        settings = load_settings(arguments.params)
        settings.model(arguments.model)
        model = Path("models") / arguments.model
        run(settings.benchmark, model / "training" / "weights", model / "onnx", model / "benchmark")

    return run_stage(f"benchmark@{arguments.model}", work)


if __name__ == "__main__":
    sys.exit(main())
