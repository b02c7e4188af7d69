"""Backs up what neither Git nor another source has, and restores it: `python -m pipelines.backup create FOLDER`.

That is MLflow's registry and artifacts, DVC's cache and run-cache, the newest training states, releases, settings and
locks, and a bundle of the Git repository. `check` reads all of a back-up, `restore` brings it into a clone.
"""

import argparse
import sys
from pathlib import Path

from pipelines.entry import answer


def work(command: str, folder: Path, overwrite: bool) -> int:
    """Do one command, say what it did, and return 0.

    Raises:
        StageError: why it could not.
    """
    if command == "create":
        from pipelines.backup.create import create

        print(f"back-up in {folder}: {create(folder)}", flush=True)
    elif command == "check":
        from pipelines.backup.store import Store

        store = Store(folder)
        manifest = store.read()
        store.check(manifest)
        print(f"back-up in {folder}: {len(manifest.files)} files of {manifest.created} are whole", flush=True)
    else:
        from pipelines.backup.restore import restore

        print(restore(folder, overwrite), flush=True)
    return 0


def main() -> int:
    """Back up, check or restore from the command line and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.backup", description=__doc__)
    parser.add_argument("command", choices=["create", "check", "restore"])
    parser.add_argument("folder", type=Path, help="the back-up's folder, best on another disk or machine")
    parser.add_argument("--overwrite", action="store_true", help="restore over files that differ and that Git has not")
    given = parser.parse_args()
    return answer("backup", lambda: work(given.command, given.folder, given.overwrite))


if __name__ == "__main__":
    sys.exit(main())
