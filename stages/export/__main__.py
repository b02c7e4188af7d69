"""Export a trained model's EMA generator to one ONNX file that any checkout writes byte for byte alike."""

import sys
from pathlib import Path

from stages.process import parse_arguments, run_stage
from stages.settings import load_settings


def main() -> int:
    """Run the stage and return its exit code."""
    arguments = parse_arguments("export", __doc__, per_model=True)

    def work() -> None:
        from stages.export.run import run

        settings = load_settings(arguments.params)
        settings.model(arguments.model)
        model = Path("models") / arguments.model
        run(settings.export, model / "training" / "weights", model / "onnx")

    return run_stage(f"export@{arguments.model}", work)


if __name__ == "__main__":
    sys.exit(main())
