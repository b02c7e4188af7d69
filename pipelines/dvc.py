"""DVC's command line as the front doors use it: this environment's, without its hints on Git after each stage."""

import logging
import os
import sys
from pathlib import Path

ERRORS = "--errors-to="


def dvc_command(*arguments: str, errors: Path | None = None) -> list[str]:
    """Return the command line that calls dvc with arguments; its error lines also go to the file `errors`."""
    keep = [f"{ERRORS}{errors}"] if errors else []
    return [sys.executable, "-m", "pipelines.dvc", *keep, *arguments]


def dvc_environment() -> dict[str, str]:
    """Return the environment in which a stage's `python` is this interpreter, whether its venv is activated or not."""
    folders = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    return {**os.environ, "PATH": os.pathsep.join(folders)}


def main() -> int:
    """Run dvc's own command line and return its exit code."""
    from dvc.cli import main as dvc_main

    logging.getLogger("dvc.repo.scm_context").setLevel(logging.WARNING)
    arguments = sys.argv[1:]
    if arguments and arguments[0].startswith(ERRORS):
        _keep_errors(Path(arguments.pop(0).removeprefix(ERRORS)))
    code: int = dvc_main(arguments)
    return code


def _keep_errors(path: Path) -> None:
    """Write dvc's error lines to a file, too: its exit code is 255 whatever the reason."""
    from dvc.logger import ColorFormatter

    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    handler = logging.FileHandler(path, delay=True)
    handler.setLevel(logging.ERROR)
    handler.setFormatter(ColorFormatter(log_colors=False))
    logging.getLogger("dvc").addHandler(handler)


if __name__ == "__main__":
    sys.exit(main())
