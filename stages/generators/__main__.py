"""Draw pictures from a trained model or an ONNX file; a seed gives the same picture from either."""

import argparse
import sys
from pathlib import Path

from stages.errors import StageError
from stages.process import prepare_environment

INTERRUPTED = 143


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this command line."""
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
    _add_conditions(parser)
    return parser


def _add_conditions(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what is drawn, where the model takes it; without it the model's own default")
    group.add_argument(
        "--label", metavar="CLASS", help="a class by its name or its number from 0 (default: all classes in turn)"
    )
    group.add_argument("--prompt", metavar="TEXT", help="what the pictures should show (default: the empty prompt)")
    group.add_argument("--negative-prompt", metavar="TEXT", help="what guidance leads away from")
    group.add_argument("--guidance", type=float, metavar="G", help="how strongly to follow class or prompt; 1: not")
    group.add_argument(
        "--truncation", type=float, metavar="T", help="less than the default: more typical, less varied pictures"
    )
    group.add_argument("--steps", type=int, metavar="N", help="sampling steps; fixed in an ONNX file")
    group.add_argument("--sampler", metavar="NAME", help="such as ddim, dpm++, euler; fixed in an ONNX file")


def main() -> int:
    """Draw and return the exit code of the design: 0, or 2 to 4 with one line on stderr."""
    given = build_parser().parse_args()
    prepare_environment()
    try:
        from stages.generators.drawing import Wishes, check_request, draw
        from stages.generators.loading import open_generator

        wishes = Wishes(
            given.label,
            given.prompt,
            given.negative_prompt,
            given.guidance,
            given.truncation,
            given.steps,
            given.sampler,
        )
        check_request(given.seed, given.count, given.out, wishes)
        generator, asked = wishes.applied(open_generator(given.model))
        draw(generator, given.seed, given.count, given.out, asked)
    except StageError as error:
        print(f"generators: {error}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        print("generators: stopped; pictures already written are whole", file=sys.stderr)
        return INTERRUPTED
    noun = "picture" if given.count == 1 else "pictures"
    told = "".join(f", {wish}" for wish in wishes.told(asked, generator.capabilities))
    print(f"{given.count} {noun} of {given.model} from seed {given.seed}{told} in {given.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
