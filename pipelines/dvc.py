"""DVC's command line as the front doors use it: this environment's, without its hints on Git after each stage."""

import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

from stages.process import AtWorkError

ERRORS = "--errors-to="
RWLOCK = Path(".dvc/tmp/rwlock")  # which process reads and writes what, while a stage runs
BLOCKER = re.compile(r"\(PID (\d+)\): (.+)")
LOCKED = "Unable to acquire lock"
POLL_SECONDS = 1.0
COMMAND_LENGTH = 160


def dvc_command(*arguments: str, errors: Path | None = None) -> list[str]:
    """Return the command line that calls dvc with arguments; its error lines also go to the file `errors`."""
    keep = [f"{ERRORS}{errors}"] if errors else []
    return [sys.executable, "-m", "pipelines.dvc", *keep, *arguments]


def dvc_environment() -> dict[str, str]:
    """Return the environment in which a stage's `python` is this interpreter, whether its venv is activated or not."""
    folders = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    return {**os.environ, "PATH": os.pathsep.join(folders)}


def other_dvc() -> str | None:
    """Return the dvc that runs a stage in this project now, as `process N: command`, or None."""
    try:
        held = json.loads(RWLOCK.read_text())
        users = [*held.get("write", {}).values(), *(user for users in held.get("read", {}).values() for user in users)]
        return next((_name(user["pid"], user["cmd"]) for user in users if _is_dvc(user["pid"])), None)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):  # absent, or dvc writes it this moment
        return None


def _is_dvc(pid: int) -> bool:
    """Return whether a process lives and is a dvc, not a later one that was given a dead one's number."""
    import psutil

    try:
        return pid != os.getpid() and any("dvc" in word for word in psutil.Process(pid).cmdline())
    except psutil.Error:
        return False


def _name(pid: int | str, command: str) -> str:
    path, _, words = command.partition(" ")
    shown = f"dvc {words}" if "dvc" in path else command
    return f"process {pid}: {shown.strip()[:COMMAND_LENGTH]}"


def wait_for_other(tell: Callable[[str], None] | None) -> None:
    """Wait until no other dvc runs a stage here, telling once for whom.

    Raises:
        AtWorkError: there is one, and nobody to tell that it is waited for.
    """
    told = False
    while other := other_dvc():
        if tell is None:
            raise AtWorkError(f"another dvc works in this project ({other}); wait for it")
        if not told:
            tell(f"another dvc works in this project ({other}); waiting for it")
        told = True
        time.sleep(POLL_SECONDS)


def explain_busy(text: str) -> str:
    """Return in one line what dvc says when another dvc holds a lock, nothing where it says something else."""
    if blocker := BLOCKER.search(text):
        return f"another dvc holds this stage's files ({_name(*blocker.groups())}); wait for it, then run again"
    return "another dvc holds the project's lock (.dvc/tmp/lock); wait for it, then run again" if LOCKED in text else ""


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
