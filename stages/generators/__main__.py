"""Draw pictures from a trained model or an ONNX file; a seed gives the same picture from either."""

import argparse
import sys
from pathlib import Path

from stages.errors import StageError
from stages.process import prepare_environment

INTERRUPTED = 143


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m stages.generators", description=__doc__)
    parser.add_argument("--model", required=True, help="a model's name under models/, or a file that ends in .onnx")
    parser.add_argument("--seed", type=int, default=0, help="the first picture's seed, 0 or more (default: 0)")
    parser.add_argument("--count", type=int, default=1, help="number of pictures, of consecutive seeds (default: 1)")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="FILE.png, .webp or .jpg: the picture, or a sheet of several; else a folder for seed-000000.png and on",
    )
    return parser.parse_args()


def main() -> int:
    """Draw and return the exit code of the design: 0, or 2 to 4 with one line on stderr."""
    arguments = parse()
    prepare_environment()
    try:
        from stages.generators.drawing import check_request, draw
        from stages.generators.loading import open_generator

        check_request(arguments.seed, arguments.count, arguments.out)
        draw(open_generator(arguments.model), arguments.seed, arguments.count, arguments.out)
    except StageError as error:
        print(f"generators: {error}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        print("generators: stopped; pictures already written are whole", file=sys.stderr)
        return INTERRUPTED
    noun = "picture" if arguments.count == 1 else "pictures"
    print(f"{arguments.count} {noun} of {arguments.model} from seed {arguments.seed} in {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
