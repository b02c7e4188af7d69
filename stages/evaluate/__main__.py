"""Score a trained model against hold-out pictures, beside the floor of real pictures and two baselines."""

import sys

from stages.process import parse_arguments, run_stage
from stages.settings import load_settings


def main() -> int:
    """Run `python -m stages.evaluate MODEL`; returns the exit code."""
    arguments = parse_arguments("evaluate", __doc__, per_model=True)

    def work() -> None:
        settings = load_settings(arguments.params)
        settings.model(arguments.model)  # a name that is not selected is refused here
        from stages.evaluate.inputs import Inputs
        from stages.evaluate.run import outputs_of, run

        run(settings.evaluate, Inputs.of(arguments.model), outputs_of(arguments.model))

    return run_stage(f"evaluate@{arguments.model}", work)


if __name__ == "__main__":
    sys.exit(main())
