"""Score a trained model against hold-out pictures, beside the floor of real pictures and two baselines.

With --real A --generated B, any two sources of pictures; with --compare, two results: see `--real --help`.
"""

import sys

from stages.evaluate.plain import command
from stages.process import parse_arguments, run_stage


def main() -> int:
    """Run `python -m stages.evaluate MODEL`, or the command over any sources; returns the exit code."""
    if command.is_meant(sys.argv[1:]):
        return command.main(sys.argv[1:])
    arguments = parse_arguments("evaluate", __doc__, per_model=True)

    def work() -> None:
        from stages.settings import load_settings

        settings = load_settings(arguments.params)
        settings.model(arguments.model)  # a name that is not selected is refused here
        from stages.evaluate.inputs import Inputs
        from stages.evaluate.run import outputs_of, run

        run(settings.evaluate, Inputs.of(arguments.model), outputs_of(arguments.model))

    return run_stage(f"evaluate@{arguments.model}", work)


if __name__ == "__main__":
    sys.exit(main())
