"""What every command of `pipelines` does around its work: quiet libraries, signals, one line for whatever ends it."""

import os
import signal
import sys
from collections.abc import Callable

from stages.errors import StageError
from stages.failures import translate
from stages.output import survive_lost_output
from stages.process import STOP, prepare_environment


def answer(name: str, work: Callable[[], int]) -> int:
    """Do a command's work and return its exit code; what ends it early is told in one line that begins with `name`.

    Settings or input give 2, a gate 3, an exhausted disk, memory or folder 4, an interruption 143. A defect keeps its
    trace.
    """
    prepare_environment()
    survive_lost_output()
    STOP.install(insistent=True)
    _stop_with_terminal()
    try:
        code = work()
        sys.stdout.flush()  # a full disk is told here, at the interpreter's end it could not be
        STOP.ignore()
        return code
    except StageError as error:
        failure = error
    except Exception as error:
        reason = translate(error)
        if reason is None:
            raise
        failure = reason
    STOP.ignore()
    _drop_unwritten()
    print(f"{name}: {failure}", file=sys.stderr, flush=True)
    return failure.code


def _stop_with_terminal() -> None:
    """Take a closed terminal for a request to stop, except under nohup, which ignores it."""
    hangup = getattr(signal, "SIGHUP", None)  # Windows has none
    if hangup is not None and signal.getsignal(hangup) is signal.SIG_DFL:
        signal.signal(hangup, signal.getsignal(signal.SIGTERM))


def _drop_unwritten() -> None:
    """Drop what standard output did not take, on which the interpreter would fail at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
