"""DVC's command line as the front doors use it: this environment's, without its hints on Git after each stage."""

import logging
import os
import sys
from pathlib import Path


def dvc_command(*arguments: str) -> list[str]:
    """Return the command line that calls dvc with arguments."""
    return [sys.executable, "-m", "pipelines.dvc", *arguments]


def dvc_environment() -> dict[str, str]:
    """Return the environment in which a stage's `python` is this interpreter, whether its venv is activated or not."""
    folders = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    return {**os.environ, "PATH": os.pathsep.join(folders)}


def main() -> int:
    """Run dvc's own command line and return its exit code."""
    from dvc.cli import main as dvc_main

    logging.getLogger("dvc.repo.scm_context").setLevel(logging.WARNING)
    code: int = dvc_main(sys.argv[1:])
    return code


if __name__ == "__main__":
    sys.exit(main())
