"""Checks a release as its receiver does: `python -m pipelines.verify releases/NAME/VERSION`.

The check is the script verify.py of the release itself, from this checkout: hashes, the model's identity, golden
pictures. Without a signature it proves that nothing was altered since, not who made it.
"""

import argparse
import sys
from pathlib import Path

from pipelines.entry import answer
from pipelines.release.shipped.verify import CPU, check
from stages.errors import GateError, InputError


def verify(folder: Path, provider: str, key: Path | None) -> int:
    """Check a release, say what was found, and return 0.

    Raises:
        InputError: there is no such folder.
        GateError: something was altered, is missing, is extra, or draws other pictures; each is named.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; expected a release such as releases/NAME/1.0.0")
    found = check(folder, provider, key)
    for line in found.notes:
        print(line)
    if found.problems:
        raise GateError(f"{folder} is not as it was made: {'; '.join(found.problems)}")
    print(f"{folder}: whole")
    return 0


def main() -> int:
    """Check a release from the command line and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.verify", description=__doc__)
    parser.add_argument("folder", type=Path, help="a release, such as releases/NAME/1.0.0")
    parser.add_argument("--provider", default=CPU, help=f"draws the golden pictures (default: {CPU})")
    parser.add_argument("--key", type=Path, help="the maker's ed25519 public key in PEM")
    given = parser.parse_args()
    return answer("verify", lambda: verify(given.folder, given.provider, given.key))


if __name__ == "__main__":
    sys.exit(main())
