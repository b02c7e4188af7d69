"""The command line over any two sources of pictures; needs no params.yaml, holds no lock and leaves no note."""

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from stages import ranks
from stages.errors import InputError, StageError
from stages.evaluate.plain.measure import Options
from stages.evaluate.plain.sources import CPU_PROVIDER, SOURCES
from stages.failures import translate
from stages.output import survive_lost_output
from stages.process import STOP, prepare_environment

NAME = "evaluate"
MEANT_BY = ("--real", "--generated", "--compare")
FEATURES = ("inception", "efficientnet_lite0", "dinov2", "clip")
RESIZES = ("tf", "pytorch", "clean")
ENGINES = ("exact", "fast")
DESCRIPTION = "Score pictures against real ones, or compare two results that --json wrote."
EPILOG = f"A and B are each {SOURCES}. Only Inception with its standard weights gives FID."


def is_meant(arguments: Sequence[str]) -> bool:
    """Tell whether a command line speaks to this module rather than to the stage of one model."""
    return any(argument.partition("=")[0] in MEANT_BY for argument in arguments)


def main(arguments: Sequence[str]) -> int:
    """Run the command and return the exit code: 0; 2 input; 3 gate; 4 out of resources; 143 interrupted."""
    given = build_parser().parse_args(["--help"] if {"-h", "--help"} & set(arguments) else list(arguments))
    return answer(partial(_compare, given) if given.compare else partial(_measure, given))


def answer(work: Callable[[], None]) -> int:
    """Do the work and return its exit code; what ends it early is told in one line, a defect keeps its trace."""
    prepare_environment()
    survive_lost_output()
    if not ranks.is_rank():  # WORLD_SIZE alone is meant for a training; a launcher such as torchrun sets RANK
        ranks.stay_alone()
    STOP.install()
    failure: StageError | None = None
    try:
        work()
        sys.stdout.flush()
    except StageError as error:
        failure = error
    except Exception as error:
        failure = translate(error)
        if failure is None:
            raise
    STOP.ignore()
    if failure:
        print(f"{NAME}: {failure}", file=sys.stderr, flush=True)
    return failure.code if failure else 0


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this command line."""
    parser = argparse.ArgumentParser(
        prog="python -m stages.evaluate", description=DESCRIPTION, epilog=EPILOG, allow_abbrev=False
    )
    _add_sources(parser)
    _add_network(parser)
    _add_scores(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write scores, intervals and recipe as JSON")
    parser.add_argument(
        "--compare",
        nargs=2,
        type=Path,
        metavar=("FIRST", "SECOND"),
        help="say which scores of the first result are better",
    )
    return parser


def _add_sources(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("sources")
    group.add_argument("--real", metavar="A", help="the reference; as its features are kept, the next run is faster")
    group.add_argument("--generated", metavar="B", help="the pictures to score")
    group.add_argument(
        "--count", type=_number(2), metavar="N", help="pictures of B (default: all; of a generator as many as A has)"
    )
    group.add_argument("--real-count", type=_number(2), metavar="N", help="pictures of A (default: all)")
    group.add_argument("--seed", type=_number(0), default=0, metavar="S", help="of every random choice (default: 0)")
    group.add_argument("--batch", type=_number(1), default=64, metavar="N", help="pictures at once (default: 64)")
    group.add_argument(
        "--provider", default=CPU_PROVIDER, metavar="NAME", help=f"runs .onnx sources (default: {CPU_PROVIDER})"
    )


def _add_network(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("features")
    group.add_argument(
        "--features",
        choices=FEATURES,
        help="the feature network (default: inception if its weights are found, otherwise efficientnet_lite0)",
    )
    group.add_argument("--weights", type=Path, metavar="FILE", help="the network's weights")
    group.add_argument("--resize", choices=RESIZES, help="the resize filter's family (default: tf)")
    group.add_argument("--engine", choices=ENGINES, default="exact", help="torch, or onnxruntime (default: exact)")


def _add_scores(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("scores")
    group.add_argument("--kid-subset", type=_number(2), metavar="N", help="default: 1000, or all of the smaller set")
    group.add_argument("--kid-subsets", type=_number(1), default=100, metavar="N", help="default: 100")
    group.add_argument(
        "--neighbours", type=_number(1), default=3, metavar="K", help="of precision and recall (default: 3)"
    )
    group.add_argument(
        "--bootstrap", type=_number(20), default=1000, metavar="N", help="resamples for intervals (default: 1000)"
    )
    group.add_argument("--per-class", action="store_true", help="also scores of each class (top-level folders)")


def _number(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {least}")
        return int(text)

    return number


def _measure(given: argparse.Namespace) -> None:
    for name in ("real", "generated"):
        if not getattr(given, name):
            raise InputError(f"--{name} is missing; both --real and --generated are needed")
    _check_output(given.json)
    from stages.evaluate.plain.measure import measure
    from stages.evaluate.table import plain_table

    report = measure(options_of(given))
    if ranks.rank():
        return
    if given.json:
        from stages.storage import write_json

        write_json(given.json, report)
    print(plain_table(report))


def _compare(given: argparse.Namespace) -> None:
    if given.real or given.generated:
        raise InputError("--compare takes two results; leave out --real and --generated")
    from stages.evaluate.plain.comparing import compare_results, read_result, refusals, verdict_table

    first, second = (read_result(path) for path in given.compare)
    verdicts = compare_results(first, second)
    if given.json:
        from stages.storage import write_json

        _check_output(given.json)
        write_json(given.json, {"first": str(given.compare[0]), "second": str(given.compare[1]), "verdicts": verdicts})
    print(verdict_table(first, second, verdicts))
    for refusal in refusals(first, second):
        print(f"evaluate: {refusal}", file=sys.stderr, flush=True)


def _check_output(path: Path | None) -> None:
    """Refuse a place that cannot be written to, before the work whose result it should hold."""
    if path is not None and (path.is_dir() or not path.parent.is_dir()):
        found = "is a folder" if path.is_dir() else "lies in a folder that does not exist"
        raise InputError(f"--json is {path}, which {found}; expected the path of a file to write")


def options_of(given: argparse.Namespace) -> Options:
    """Return the options of a parsed command line."""
    names = Options.__dataclass_fields__
    return Options(**{name: getattr(given, name) for name in names})
