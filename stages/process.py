"""How a stage lives and ends: signals, its parent's death, its lock, its exit code and the note it leaves."""

import argparse
import contextlib
import ctypes
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from types import FrameType

from stages import ranks
from stages.errors import InputError, Interrupted, StageError
from stages.failures import translate
from stages.output import survive_lost_output
from stages.storage import write_json

WORK = Path(".work")
NOTES = WORK / "last"  # how each stage ended
PR_SET_PDEATHSIG = 1
PARENT_POLL_SECONDS = 1.0
OWNER_LENGTH = 160
MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")

QUIET = {
    "OMP_WAIT_POLICY": "PASSIVE",  # libgomp spins at barriers: 30 times slower beside any other load on small machines
    "DVC_NO_ANALYTICS": "1",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
}


def prepare_environment() -> None:
    """Set thread policy and switch telemetry off, before any heavy import; what the user has set stays."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)


def die_with_parent() -> None:
    """Ask for SIGTERM when the parent process ends, so that a killed `dvc repro` leaves no training behind.

    Linux delivers it through PR_SET_PDEATHSIG; a thread that polls the parent's id covers other systems and the
    case where an intermediate parent hands the process to another one.
    """
    parent = os.getppid()
    if parent == 1:  # a service manager or container started the stage itself
        return
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        raise Interrupted("the process that started this stage has ended")
    threading.Thread(target=_poll_parent, args=(parent,), daemon=True, name="parent-poll").start()


def _poll_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PARENT_POLL_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)


class StopSignal:
    """Remembers that SIGTERM or SIGINT arrived; loops that can save ask it, all else is interrupted at once."""

    def __init__(self) -> None:
        self.requested = False
        self.deferred = False
        self.insistent = False

    def install(self, insistent: bool = False) -> None:
        """Handle SIGTERM and SIGINT in this process.

        Group and parent may both ask a stage to stop, so only the first request interrupts it and it cleans up
        undisturbed; where `insistent`, each further one interrupts again.
        """
        self.insistent = insistent
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)

    def ignore(self) -> None:
        """Let no signal change the exit code of ended work: CPython drops its handlers before the process ends."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        repeated, self.requested = self.requested, True
        if not self.deferred and (self.insistent or not repeated):
            raise Interrupted(f"stopped by {signal.Signals(number).name}")

    @contextlib.contextmanager
    def defer(self) -> Iterator["StopSignal"]:
        """Within the block signals only set `requested`; the block's owner decides where it is safe to stop."""
        self.deferred = True
        try:
            yield self
        finally:
            self.deferred = False


STOP = StopSignal()


class AtWorkError(InputError):
    """Another process works on the same things in this workspace."""


@contextlib.contextmanager
def stage_lock(stage: str, wait: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold the lock of one stage of this workspace; the kernel frees it when the process dies.

    Where another process holds it, `wait` is told which one, since when and what it runs, and then it is waited for.

    Raises:
        AtWorkError: another process holds it and there is no `wait`; the message tells the same.
    """
    from filelock import FileLock, Timeout

    path = WORK / "locks" / f"{stage}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    owner = path.with_suffix(".owner")
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        found = f"{stage} is already running in this workspace ({_describe_owner(owner)})"
        if wait is None:
            raise AtWorkError(f"{found}; wait for it") from None
        wait(f"{found}; waiting for it")
        lock.acquire()
    try:
        owner.write_text(str(os.getpid()))
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


def _describe_owner(owner: Path) -> str:
    """Return the process that a lock's owner file names, since when it holds the lock, and its command line."""
    import psutil

    try:
        pid, since = int(owner.read_text()), datetime.fromtimestamp(owner.stat().st_mtime)
    except (OSError, ValueError):  # it starts or ends this moment
        return "process unknown"
    try:
        command = psutil.Process(pid).cmdline()
    except psutil.Error:
        return f"process {pid}"
    words = " ".join(" ".join([Path(command[0]).name, *command[1:]] if command else []).split())
    return f"process {pid} since {since:%Y-%m-%d %H:%M:%S}: {words[:OWNER_LENGTH]}"


def parse_arguments(stage: str, description: str, per_model: bool, extra: Callable | None = None) -> argparse.Namespace:
    """Parse a stage's command line: the model's name where the stage is one per model, `--params`, and `extra`."""
    parser = argparse.ArgumentParser(prog=f"python -m stages.{stage}", description=description)
    if per_model:
        parser.add_argument("model", help="a name from `select` in params.yaml")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="settings file (default: params.yaml)")
    if extra:
        extra(parser)
    arguments = parser.parse_args()
    if per_model and not MODEL_NAME.fullmatch(arguments.model):  # it becomes part of paths
        sys.exit(_refuse(f"{stage}: {arguments.model!r} is no model's name: letters, digits, - and _ only"))
    return arguments


def _refuse(message: str) -> int:
    print(message, file=sys.stderr, flush=True)
    return InputError.code


def run_stage(stage: str, work: Callable[[], None], several: bool = False) -> int:
    """Run a stage's work under its lock and return its exit code, with one clear line for whatever ends it early.

    The outcome (code, reason, retryable) is left in `.work/last/STAGE.json`, since DVC turns any failure into 255.
    Where `several`, WORLD_SIZE decides how many processes do the work together; any other stage ignores it.
    """
    prepare_environment()
    survive_lost_output()
    started = time.time()
    if not several:
        ranks.stay_alone()
    failure: StageError | None = None
    try:
        STOP.install()
        die_with_parent()
        _work_alone_or_together(stage, work)
        STOP.ignore()
    except StageError as error:
        failure = error
    except Exception as error:
        failure = ranks.lost_peer(error) if ranks.is_lost_peer(error) else translate(error)
        if failure is None:  # a defect: it keeps its trace
            _leave_note(stage, started, StageError(f"{type(error).__name__}: {error}"))
            raise
    STOP.ignore()
    if failure and not ranks.has_leader():
        print(f"{stage}: {failure}", file=sys.stderr, flush=True)
    _leave_note(stage, started, failure)
    return failure.code if failure else 0


def _work_alone_or_together(stage: str, work: Callable[[], None]) -> None:
    """Work under the stage's lock, which the first of several processes holds for all."""
    if ranks.world_size() > 1 and not ranks.is_rank():
        with stage_lock(stage):
            pass  # a second training is refused before its processes start
        ranks.Ranks(stage, NOTES).run()
    elif ranks.rank() > 0:
        work()
    else:
        with stage_lock(stage):
            work()


def _leave_note(stage: str, started: float, failure: StageError | None) -> None:
    note = {
        "code": failure.code if failure else 0,
        "reason": str(failure) if failure else "finished",
        "retryable": failure.retryable if failure else False,
        "seconds": round(time.time() - started, 3),
    }
    name = ranks.name_of(stage) if ranks.has_leader() or ranks.rank() else stage
    with contextlib.suppress(OSError):  # the note explains a failure; it must not replace it
        write_json(NOTES / f"{name}.json", note)
