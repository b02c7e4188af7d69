"""Assembles the folder that another team receives: `python -m pipelines.release NAME`.

releases/NAME/VERSION holds the ONNX file, what it takes and gives, how good and how fast it is, golden pictures, and
scripts that check and run it without this project. `--compare A B` draws the same latents with two releases instead.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

from pipelines.entry import answer

RELEASES = Path("releases")
COUNT = 256


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this command line."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.release", description=__doc__)
    parser.add_argument("name", help="a trained, scored, exported and timed model under models/")
    parser.add_argument("--version", metavar="X.Y.Z", help="default: the next; changed inputs or outputs raise MAJOR")
    parser.add_argument("--out", type=Path, default=RELEASES, help=f"the folder of all releases (default: {RELEASES})")
    parser.add_argument("--sign", type=Path, metavar="KEY.pem", help="sign SHA256SUMS with this private ed25519 key")
    group = parser.add_argument_group("how far two releases of a model are apart, instead of a new one")
    group.add_argument("--compare", nargs=2, metavar=("A", "B"), help="versions such as 1.0.0 1.1.0")
    group.add_argument("--count", type=int, default=COUNT, help=f"seeds to draw with both (default: {COUNT})")
    group.add_argument("--json", action="store_true", help="print the differences as JSON")
    return parser


def work(given: argparse.Namespace) -> int:
    """Assemble a release, or compare two, and return 0.

    Raises:
        StageError: why it could not.
    """
    if given.compare:
        from pipelines.release.drift import compare, told

        one, other = given.compare
        found = compare(given.out / given.name, one, other, given.count)
        print(told(found, given.json), flush=True)
        return 0
    from pipelines.release.assemble import release
    from pipelines.release.signing import Signer

    tell = partial(print, flush=True)
    signer = Signer(given.sign) if given.sign else None
    folder = release(given.name, given.version, given.out, signer, tell)
    tell(f"{folder}: whole{', signed' if signer else ''}; hand it over as it is, `python verify.py` in it checks it")
    return 0


def main() -> int:
    """Release or compare from the command line and return the exit code."""
    parser = build_parser()
    given = parser.parse_args()
    if given.compare and (given.version or given.sign):
        parser.error("--compare makes no release; leave --version and --sign out")
    if not given.compare and (given.json or given.count != COUNT):
        parser.error("--json and --count belong to --compare A B")
    return answer("release", lambda: work(given))


if __name__ == "__main__":
    sys.exit(main())
